// Moments and averages of a ShardedOptimizer as whole tensors, for checkpoints: their files know
// nothing of ranks, so that any layout loads what another one wrote.
#pragma once
#include <vector>

#include "parallel/zero1.h"

namespace minke {

// Both moments of each tensor of an optimizer's list, whole.
struct WholeMoments {
  std::vector<Tensor*> first, second;
};

// The parts of the tensors, by their sizes, whose states rank `rank` of n_ranks keeps: the slices
// of its ShardedOptimizer, in their order.
std::vector<Piece> owned_slices(const std::vector<Index>& sizes, int n_ranks, int rank);

// Collective over the optimizer's `group`. The moments of tensor t come to those of `whole` on rank
// to[t], the same on all ranks; what is there of the other tensors is not looked at.
void gather_moments(Communicator& group, ShardedOptimizer& optimizer, std::span<const int> to,
                    const WholeMoments& whole);

// The own slices' moments from whole tensors that every rank has.
void take_moments(const WholeMoments& whole, ShardedOptimizer& optimizer);

// Likewise the averages of an optimizer that keeps them, as the tensors of its list; they come to
// every rank of the group.
void gather_averages(Communicator& group, ShardedOptimizer& optimizer,
                     const std::vector<Tensor*>& whole);
void take_averages(const std::vector<Tensor*>& whole, ShardedOptimizer& optimizer);

}  // namespace minke

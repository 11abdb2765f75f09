#include "parallel/shard_states.h"

#include <algorithm>

namespace minke {
namespace {

constexpr int kTag = 1;

std::span<std::byte> bytes_of(Tensor& tensor, Index begin, Index count) {
  const std::size_t size = size_of(tensor.dtype());
  return {static_cast<std::byte*>(tensor.raw()) + static_cast<std::size_t>(begin) * size,
          static_cast<std::size_t>(count) * size};
}

std::vector<Piece> slices_of(const ShardedOptimizer& optimizer, int n_ranks, int rank) {
  std::vector<Index> sizes;
  for (const ShardedTensor& tensor : optimizer.tensors()) sizes.push_back(tensor.weight->size());
  return owned_slices(sizes, n_ranks, rank);
}

void copy(std::span<const std::byte> from, std::span<std::byte> to) {
  std::copy(from.begin(), from.end(), to.begin());
}

}  // namespace

std::vector<Piece> owned_slices(const std::vector<Index>& sizes, int n_ranks, int rank) {
  const std::vector<Piece> pieces = cut_into_pieces(sizes);
  const IndexRange own = owned_pieces(pieces, n_ranks)[static_cast<std::size_t>(rank)];
  std::vector<Piece> slices;
  for (Index i = own.begin; i < own.end; ++i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    if (slices.empty() || slices.back().tensor != piece.tensor)
      slices.push_back(piece);
    else
      slices.back().count += piece.count;
  }
  return slices;
}

// Each slice goes straight to its place; between two ranks in the order of the sender's slices.
void gather_moments(Communicator& group, ShardedOptimizer& optimizer, std::span<const int> to,
                    const WholeMoments& whole) {
  std::vector<Request> requests;
  for (int rank = 0; rank < group.size(); ++rank)
    for (const Piece& slice : slices_of(optimizer, group.size(), rank))
      if (to[slice.tensor] == group.rank())
        for (const std::vector<Tensor*>* tensors : {&whole.first, &whole.second})
          requests.push_back(group.receive(
              bytes_of(*(*tensors)[slice.tensor], slice.begin, slice.count), rank, kTag));
  for (OwnedSlice& slice : optimizer.slices())
    for (Tensor* tensor : {&slice.first, &slice.second})
      requests.push_back(group.send(bytes_of(*tensor, 0, slice.count), to[slice.tensor], kTag));
  wait_all(requests);
}

void take_moments(const WholeMoments& whole, ShardedOptimizer& optimizer) {
  for (OwnedSlice& slice : optimizer.slices()) {
    copy(bytes_of(*whole.first[slice.tensor], slice.begin, slice.count),
         bytes_of(slice.first, 0, slice.count));
    copy(bytes_of(*whole.second[slice.tensor], slice.begin, slice.count),
         bytes_of(slice.second, 0, slice.count));
  }
}

void gather_averages(Communicator& group, ShardedOptimizer& optimizer,
                     const std::vector<Tensor*>& whole) {
  for (OwnedSlice& slice : optimizer.slices())
    copy(bytes_of(slice.ema, 0, slice.count),
         bytes_of(*whole[slice.tensor], slice.begin, slice.count));
  std::vector<Request> requests;
  for (int rank = 0; rank < group.size(); ++rank)
    for (const Piece& slice : slices_of(optimizer, group.size(), rank))
      requests.push_back(
          group.broadcast(bytes_of(*whole[slice.tensor], slice.begin, slice.count), rank));
  wait_all(requests);
}

void take_averages(const std::vector<Tensor*>& whole, ShardedOptimizer& optimizer) {
  for (OwnedSlice& slice : optimizer.slices())
    copy(bytes_of(*whole[slice.tensor], slice.begin, slice.count),
         bytes_of(slice.ema, 0, slice.count));
}

}  // namespace minke

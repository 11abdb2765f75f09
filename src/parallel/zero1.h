// ZeRO-1 (Rajbhandari et al., arXiv 1910.02054): optimiser states are spread over the ranks that
// hold replicas of the same tensors. Each rank owns a slice of the flattened tensors: the sum of
// their gradients, both moments and the moving average of the weights. A step is
//
//   reduce_gradients    the slice's gradient, summed over ranks and micro-batches in a fixed order
//   gradient_norm       over the slices of all ranks of the job
//   update              the slice's moments and weights
//   gather_weights      every slice of the weights goes to all ranks of the group
//
// Weights stay whole on each rank, in FP32 (or FP64): of the 16 bytes a parameter needs with BF16
// moments and an FP32 average, the 8 of moments and average are divided by the ranks.
//
// A step has the same bits as optimizer_step (train/optimizer.h) on one rank, for any number of
// ranks: slices begin and end where pieces do (parallel/optimizer_pieces.h).
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/ema_piece.h"
#include "parallel/reduction.h"

namespace minke {

// The pieces that each rank owns: rank r those that begin in share r of all elements (share_of in
// parallel/mesh.h). A function of the tensors' sizes and the number of ranks alone, so any layout
// can tell where another one kept what.
std::vector<IndexRange> owned_pieces(const std::vector<Piece>& pieces, int n_ranks);

// One of the tensors that the ranks of a group have replicas of. Biases of the router are none of
// them: they have no gradient.
struct ShardedTensor {
  std::string name;  // the published one
  Tensor* weight;    // whole, on every rank
  bool decays = true;
  Index first_piece = 0;  // ModelPieces::first: where its squares stand in the sum of the norm
};

// The gradient of one micro-batch, or the sum of several: a part for each tensor of the list, of as
// many elements. Terms are added in the order of their numbers, whichever ranks have them; no two
// terms have the same number.
struct GradientTerm {
  Index number;
  std::vector<TensorPart> parts;
};
GradientTerm whole_term(Index number, const std::vector<Tensor*>& tensors);

struct ShardSettings {
  DType moments = DType::BF16;
  std::optional<DType> ema = {};  // of the average of matrices; vectors have FP32. None: no average
};

// A part of a tensor whose states are this rank's.
struct OwnedSlice {
  std::size_t tensor;         // of the list
  Index begin, count;         // elements of the tensor
  Tensor first, second, ema;  // [count]; ema undefined without an average
};

// The squares of a gradient's piece.
struct PieceSum {
  Index piece;  // of the model
  double sum;
};

class ShardedOptimizer {
 public:
  // Zero moments and averages. The list is the same on all ranks of `group`, which must outlive the
  // optimizer; weights are all FP32 or all FP64 (then without an average).
  ShardedOptimizer(Communicator& group, std::vector<ShardedTensor> tensors,
                   const ShardSettings& settings);

  // Collective. The sum of the terms of all ranks becomes the gradient of the own slices. The terms
  // stay as they are.
  void reduce_gradients(std::span<const GradientTerm> terms);

  // Collective, after reduce_gradients. The sum of all slices goes to `whole`, a tensor for each of
  // the list, on every rank of the group: to be looked at, the update does not need it.
  void gather_gradients(const std::vector<Tensor*>& whole) const;

  // Of the own pieces, after reduce_gradients.
  std::vector<PieceSum> squares();

  // Moments and weights of the own slices; settings.weight_decay acts on tensors that decay.
  void update(const AdamW& settings);

  // Collective. The weights of all slices go from their owners to all ranks.
  void gather_weights();

  // The averages of the own slices, after the update; with ShardSettings::ema alone.
  void update_ema(const EmaUpdate& update);

  const std::vector<ShardedTensor>& tensors() const { return tensors_; }
  // In the order of the list; to be saved and loaded.
  std::vector<OwnedSlice>& slices() { return slices_; }

 private:
  struct OwnedPiece {
    std::size_t slice;
    Index begin, count;  // elements of the slice
    Index in_gradient;   // where it begins in gradient_
    Index in_model;
  };

  void add_slices(const std::vector<Piece>& pieces, const ShardSettings& settings);
  bool in_double() const;
  template <class Real>
  void gather(const std::vector<Tensor*>& whole) const;
  TensorPart weight_of(const OwnedPiece& piece) const;

  Communicator& group_;
  std::vector<ShardedTensor> tensors_;
  std::vector<IndexRange> ranges_;  // elements of the flattened tensors that each rank owns
  std::vector<OwnedSlice> slices_;
  std::vector<OwnedPiece> pieces_;
  Tensor gradient_;  // of the own slices, one after another
};

// Collective over all ranks of the job, each of which brings its own pieces (of several
// ShardedOptimizers, in any order): the norm of the whole gradient, the same bits on every layout.
// CommError when the pieces of all ranks are not the n_pieces of the model, each once.
double gradient_norm(Communicator& world, std::span<const PieceSum> own, Index n_pieces);

}  // namespace minke

// An optimiser's step over parts of tensors: what one rank does to all of them (train/optimizer.h)
// and what each of several ranks does to its own (parallel/zero1.h), with the same bits.
//
// Tensors are cut into pieces of 32,768 elements, counted from the beginning of each. The squares
// of the gradient are summed over each piece, then the sums of all pieces of the model in order,
// whoever made them.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "ops/adamw.h"

namespace minke {

// Weight, gradient and moments of one piece are at most 512 KiB: they stay in a core's L2 through
// the update.
inline constexpr Index kPiece = 32768;

struct Piece {
  std::size_t tensor;  // of a list
  Index begin, count;
};
// Of tensors with so many elements, in order.
std::vector<Piece> cut_into_pieces(const std::vector<Index>& sizes);

// The pieces of a whole model: of every tensor that has a gradient, in the order of
// visit_parameters.
struct ModelPieces {
  std::map<std::string, Index> first;  // of each tensor, by its published name
  Index count = 0;
};
ModelPieces pieces_of_model(const ModelConfig& config);

// Elements of a tensor from `begin` on, whatever its rank.
struct TensorPart {
  Tensor* tensor;
  Index begin;

  template <class T>
  View1<T> view(Index count) const {
    return tensor->flat<T>().slice(0, begin, count);
  }
};

// In double. The gradient is FP32 or FP64; count is at most kPiece.
double sum_of_squares(const TensorPart& gradient, Index count);

struct UpdatedParts {
  TensorPart gradient, weight, m, v;
};
// Gradient and weight are FP32 with moments in FP32 or BF16, or FP64 with any. The gradient stays.
void adamw_update(const AdamW& settings, const UpdatedParts& parts, Index count);

}  // namespace minke

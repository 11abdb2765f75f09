// One side of a linear's product, in the form in which it is multiplied and kept for the weight
// gradient, made once and shared by every linear that reads it. In compute fp64 and fp32 that is
// the tensor itself; training in bf16 its numbers rounded, as the products would round them (2
// bytes a value); in FP8 training its E4M3 codes in tiles of 1x128 (1.03 bytes a value).
//
//   y = x W^T        apply               x = operand(model, tensor)
//   dx = dy W        apply_transposed    dy likewise
//   dW += dy^T x     weight_gradient     along_tokens(dy), along_tokens(x): tiles of 128x1
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <type_traits>

#include "model/weights.h"
#include "ops/e5m6_rows.h"

namespace minke {

using SharedTensor = std::shared_ptr<const Tensor>;

inline SharedTensor share(Tensor t) {
  return std::allocate_shared<const Tensor>(BlockAllocator<Tensor>(), std::move(t));
}

struct Operand {
  SharedTensor values;                 // [T, K] of Real or BF16, or
  std::shared_ptr<const Fp8Rows> fp8;  // its codes

  bool defined() const { return values || fp8; }
};

// What quantising did to the inputs, output gradients and weights of a layer's linears; each tensor
// counts once, however many products read it, and not again when it is recomputed.
struct Fp8LayerCounts {
  Fp8Counts x, dy, w;
};
inline Fp8Counts* inputs_of(Fp8LayerCounts* counts) {
  return counts ? &counts->x : nullptr;
}
inline Fp8Counts* gradients_of(Fp8LayerCounts* counts) {
  return counts ? &counts->dy : nullptr;
}

// Calls f with the type of a tensor that only linears read: an operand already.
template <class Real, class F>
void with_operand_type(const ModelOf<Real>& model, const F& f) {
  if constexpr (std::is_same_v<Real, float>)
    if (model.narrow_operands) return f(std::type_identity<BF16>());
  f(std::type_identity<Real>());
}

// x of either type. `counts`, when given, are added to in FP8 training.
template <class Real>
Operand operand(const ModelOf<Real>& model, SharedTensor x, Fp8Counts* counts = nullptr);

// f(view of the values or codes).
template <class Real, class F>
decltype(auto) with_view(const Operand& x, const F& f) {
  if constexpr (std::is_same_v<Real, float>) {
    if (x.fp8) return f(x.fp8->view());
    if (x.values->dtype() == DType::BF16) return f(x.values->v2<BF16>());
  }
  return f(x.values->v2<Real>());
}

// y = x W^T and dx = dy W.
template <class Real>
void apply(const WeightOf<Real>& w, const Operand& x, View2<Real> y,
           Write write = Write::Overwrite);
template <class Real>
void apply_transposed(const WeightOf<Real>& w, const Operand& dy, View2<Real> dx,
                      Write write = Write::Overwrite);
// For rows [offsets[e], offsets[e + 1]) and w[e], all experts in one call.
template <class Real>
void apply_grouped(std::span<const WeightOf<Real>* const> w, const Operand& x,
                   std::span<const Index> offsets, View2<Real> y);
template <class Real>
void apply_transposed_grouped(std::span<const WeightOf<Real>* const> w, const Operand& dy,
                              std::span<const Index> offsets, View2<Real> dx,
                              Write write = Write::Overwrite);

// A gated feed-forward network's products with its unit between them (ops/gated_products.h), for
// all experts in one call. x [n, D] -> hidden [n, F]; gate and up [n, F] are overwritten.
template <class Real>
Operand apply_gated(const ModelOf<Real>& model, std::span<const WeightOf<Real>* const> w_gate,
                    std::span<const WeightOf<Real>* const> w_up, const Operand& x,
                    std::span<const Index> offsets, Tensor& gate, Tensor& up,
                    Fp8Counts* counts = nullptr);
// dy [n, D] -> the gradients of gate and up; hidden is made again where it was not kept.
struct GatedGradients {
  Operand hidden, dgate, dup;  // [n, F]
};
template <class Real>
GatedGradients gated_gradients(const ModelOf<Real>& model,
                               std::span<const WeightOf<Real>* const> w_down, const Operand& dy,
                               std::span<const Index> offsets, Tensor gate, Tensor up,
                               Operand hidden, Fp8Counts* counts = nullptr);
// dx = dgate W_gate + dup W_up.
template <class Real>
void apply_gated_transposed(std::span<const WeightOf<Real>* const> w_gate,
                            std::span<const WeightOf<Real>* const> w_up,
                            const GatedGradients& gradients, std::span<const Index> offsets,
                            View2<Real> dx, Write write = Write::Overwrite);

// An activation kept for the backward pass that is no operand: FP8 training keeps it in E4M3.
struct Kept {
  Tensor values;
  Fp8Rows fp8;
};
template <class Real>
Kept keep(const ModelOf<Real>& model, Tensor x);
Tensor restore(Kept kept);

// Attention's output, which its own backward pass and the weight gradient of the linear after it
// read: in FP8 training in E5M6 (ops/e5m6_rows.h).
struct KeptOutput {
  SharedTensor values;
  E5m6Rows e5m6;
};
template <class Real>
KeptOutput keep_attention_output(const ModelOf<Real>& model, SharedTensor x);
SharedTensor values_of(const KeptOutput& kept);

// A side of a weight gradient: tokens are summed over.
struct TokenOperand {
  SharedTensor values;
  std::optional<Fp8Columns> fp8;
};
// Tiles begin at each of `offsets`, where there are any: the rows of experts.
template <class Real>
TokenOperand along_tokens(const ModelOf<Real>& model, const Operand& x,
                          std::span<const Index> offsets = {});
template <class Real>
TokenOperand along_tokens(const ModelOf<Real>& model, const KeptOutput& x);

// dw += dy^T x.
template <class Real>
void weight_gradient(const ModelOf<Real>& model, const TokenOperand& dy, const TokenOperand& x,
                     Tensor& dw);
template <class Real>
void weight_gradient_grouped(const ModelOf<Real>& model, const TokenOperand& dy,
                             const TokenOperand& x, std::span<const Index> offsets,
                             std::span<const View2<Real>> dw);

}  // namespace minke

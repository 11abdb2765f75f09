// Routed experts: grouped products over rows that are sorted by expert, and the whole MoE layer
// (the report's equation 12):  y = sum_shared FFN_s(x) + sum_k g_k FFN_{i_k}(x)
#pragma once
#include <memory>

#include "model/dispatch.h"
#include "model/ffn.h"
#include "model/gate.h"

namespace minke {

// Bytes of a row as in FfnSaved; `rows` are gathered again from MoeSaved::x.
struct ExpertsSaved {
  Kept gate, up;   // [rows, F]
  Operand hidden;  // [rows, F]; empty where B computes it again
};
struct ExpertsWeightWork {
  Operand rows, drows_out;  // [rows, D]
  GatedGradients unit;      // [rows, F]
};

// rows [n, D] sorted by expert -> out [n, D].
template <class Real>
ExpertsSaved experts_forward(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                             std::span<const Index> offsets, const Operand& rows, View2<Real> out,
                             Fp8LayerCounts* counts = nullptr);
// `rows` are the inputs of the forward; drows_out [n, D] -> drows [n, D], overwritten.
template <class Real>
ExpertsWeightWork experts_backward_input(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                                         std::span<const Index> offsets, Operand rows,
                                         Tensor drows_out, ExpertsSaved saved, View2<Real> drows,
                                         Fp8LayerCounts* counts = nullptr);
template <class Real>
void experts_backward_weight(const ModelOf<Real>& model, ExpertsWeightWork work,
                             std::span<const Index> offsets, MoeGradients& dw);

// Whether dw has [S, N, K] for a matrix of an expert (zero_gradients_by_source), and `offsets` must
// be the segments of S sources.
bool is_by_source(const MoeGradients& dw);

struct MoeSaved {
  GateSaved gate;  // x [T, D] in full precision
  Operand x;       // [T, D], which experts read: gate.x itself, rounded, or its codes
  std::unique_ptr<Dispatch> dispatch;
  ExpertsSaved experts;
  Kept out;  // [rows, D] outputs of the experts, for the gradient of the gate weights
  FfnSaved shared;
};
struct MoeWeightWork {
  GateWeightWork gate;
  std::unique_ptr<Dispatch> dispatch;
  ExpertsWeightWork experts;
  FfnWeightWork shared;
};

// x [T, D] -> y [T, D], overwritten. load [E] += the selections made, when not empty.
template <class Real>
MoeSaved moe_forward(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w, SharedTensor x,
                     View2<Real> y, std::span<std::int64_t> load = {},
                     Fp8LayerCounts* counts = nullptr);
// dy [T, D] -> dx [T, D], overwritten.
template <class Real>
MoeWeightWork moe_backward_input(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                                 SharedTensor dy, MoeSaved saved, BalanceTerm& balance,
                                 View2<Real> dx, Fp8LayerCounts* counts = nullptr);
template <class Real>
void moe_backward_weight(const ModelOf<Real>& model, MoeWeightWork work, MoeGradients& dw);

// Drops the input, and takes it again before B.
void forget_input(MoeSaved& saved);
template <class Real>
void restore_input(const ModelOf<Real>& model, SharedTensor x, MoeSaved& saved);

}  // namespace minke

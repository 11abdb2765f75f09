// Routed experts: grouped products over rows that are sorted by expert, and the whole MoE layer
// (the report's equation 12):  y = sum_shared FFN_s(x) + sum_k g_k FFN_{i_k}(x)
#pragma once
#include <memory>

#include "model/dispatch.h"
#include "model/ffn.h"
#include "model/gate.h"

namespace minke {

struct ExpertsSaved {
  Tensor gate, up;  // [rows, F]
};
struct ExpertsWeightWork {
  Tensor rows, drows_out;     // [rows, D]
  Tensor dgate, dup, hidden;  // [rows, F]
};

// rows [n, D] sorted by expert -> out [n, D].
template <class Real>
ExpertsSaved experts_forward(const MoeWeightsOf<Real>& w, std::span<const Index> offsets,
                             View2<const Real> rows, View2<Real> out);
// `rows` are the inputs of the forward; drows_out [n, D] -> drows [n, D], overwritten.
template <class Real>
ExpertsWeightWork experts_backward_input(const MoeWeightsOf<Real>& w,
                                         std::span<const Index> offsets, Tensor rows,
                                         Tensor drows_out, ExpertsSaved saved, View2<Real> drows);
template <class Real>
void experts_backward_weight(ExpertsWeightWork work, std::span<const Index> offsets,
                             Precision precision, MoeGradients& dw);

struct MoeSaved {
  GateSaved gate;
  std::unique_ptr<Dispatch> dispatch;
  ExpertsSaved experts;
  Tensor out;  // [rows, D] outputs of the experts, for the gradient of the gate weights
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
MoeSaved moe_forward(const ModelConfig& config, const MoeWeightsOf<Real>& w, SharedTensor x,
                     View2<Real> y, std::span<std::int64_t> load = {});
// dy [T, D] -> dx [T, D], overwritten.
template <class Real>
MoeWeightWork moe_backward_input(const ModelConfig& config, const MoeWeightsOf<Real>& w,
                                 SharedTensor dy, MoeSaved saved, BalanceTerm& balance,
                                 View2<Real> dx);
template <class Real>
void moe_backward_weight(const ModelConfig& config, MoeWeightWork work, Precision precision,
                         MoeGradients& dw);

}  // namespace minke

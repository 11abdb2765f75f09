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
ExpertsSaved experts_forward(const MoeWeights& w, std::span<const Index> offsets,
                             View2<const float> rows, View2<float> out);
// `rows` are the inputs of the forward; drows_out [n, D] -> drows [n, D], overwritten.
ExpertsWeightWork experts_backward_input(const MoeWeights& w, std::span<const Index> offsets,
                                         Tensor rows, Tensor drows_out, ExpertsSaved saved,
                                         View2<float> drows);
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
MoeSaved moe_forward(const ModelConfig& config, const MoeWeights& w, SharedTensor x, View2<float> y,
                     std::span<std::int64_t> load = {});
// dy [T, D] -> dx [T, D], overwritten.
MoeWeightWork moe_backward_input(const ModelConfig& config, const MoeWeights& w, SharedTensor dy,
                                 MoeSaved saved, BalanceTerm& balance, View2<float> dx);
void moe_backward_weight(const ModelConfig& config, MoeWeightWork work, Precision precision,
                         MoeGradients& dw);

}  // namespace minke

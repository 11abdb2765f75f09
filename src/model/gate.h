// The gate of an MoE layer (the report's equations 12-20): logits in full precision, biased choice,
// unbiased weights, and the sequence-wise balance loss. The choice carries no gradient.
#pragma once
#include "model/mla.h"
#include "ops/route.h"

namespace minke {

struct GateSaved {
  SharedTensor x;  // [T, D]
  Tensor scores;   // [T, E] sigmoid(x W^T)
  Tensor indices;  // I32 [T, K]
  Tensor weights;  // [T, K]
};
struct GateWeightWork {
  SharedTensor x;
  Tensor dlogits;  // [T, E]
};

// Over what f and P of the balance loss are taken: each sequence (the report's equations 17-20), or
// all tokens of the micro-batch together (the batch-wise loss that its section 4.5.3 compares with;
// with one micro-batch a step that is the whole batch).
enum class BalanceScope : std::uint8_t { Sequence, MicroBatch };

// What the balance loss of one layer needs and gives; `loss`, `f` and `p` are set by B.
struct BalanceTerm {
  double alpha = 0;
  Index length = 0;  // positions that f and P are taken over
  double loss = 0;
  Tensor f, p;  // F64 [T / length, E]
};

// x [T, D] -> scores, choice and weights.
template <class Real>
GateSaved gate_forward(const ModelConfig& config, const MoeWeightsOf<Real>& w, SharedTensor x);
// dweights [T, K] -> dx [T, D], added to. The balance loss is computed here, with its gradient.
template <class Real>
GateWeightWork gate_backward_input(const ModelConfig& config, const MoeWeightsOf<Real>& w,
                                   View2<const Real> dweights, GateSaved saved,
                                   BalanceTerm& balance, View2<Real> dx);
// Operands are never rounded, whatever the compute.
template <class Real>
void gate_backward_weight(GateWeightWork work, MoeGradients& dw);

}  // namespace minke

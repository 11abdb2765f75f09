// One transformer block, pre-norm:
//   u = x + MLA(RMSNorm(x));   y = u + FFN(RMSNorm(u))       FFN dense or MoE
#pragma once
#include "model/experts.h"
#include "model/mla.h"

namespace minke {

// x and u take 8 D bytes of a token, FP32 whatever the compute. recompute.rmsnorm leaves out the
// norms' outputs, which attention, gate and feed-forward network read.
struct BlockSaved {
  Tensor x, x_rstd;  // [T, D], [T] input of the first norm
  MlaSaved attention;
  Tensor u, u_rstd;  // [T, D], [T] input of the second
  FfnSaved ffn;      // dense layers
  MoeSaved moe;      // the others
};
struct BlockWeightWork {
  Tensor x, x_rstd, dnorm1;  // [T, D], [T], [T, D]
  Tensor u, u_rstd, dnorm2;
  MlaWeightWork attention;
  FfnWeightWork ffn;
  MoeWeightWork moe;
};

// x [T, D] -> y [T, D]. load [E] += selections (MoE layers), when not empty.
template <class Real>
BlockSaved block_forward(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                         SequenceBatch batch, Tensor x, Tensor& y,
                         std::span<std::int64_t> load = {}, Fp8LayerCounts* counts = nullptr);
// dy [T, D] -> dx.
template <class Real>
BlockWeightWork block_backward_input(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                                     SequenceBatch batch, Tensor dy, BlockSaved saved,
                                     BalanceTerm& balance, Tensor& dx,
                                     Fp8LayerCounts* counts = nullptr);
template <class Real>
void block_backward_weight(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                           BlockWeightWork work, BlockGradients& dw);

}  // namespace minke

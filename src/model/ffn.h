// The feed-forward network of a dense layer, and the shared experts of an MoE layer.
//   y = (silu(x W_gate^T) * (x W_up^T)) W_down^T
#pragma once
#include "model/mla.h"

namespace minke {

struct FfnSaved {
  SharedTensor x;   // [T, D]
  Tensor gate, up;  // [T, F] before SwiGLU; their product is computed again in B
};
struct FfnWeightWork {
  SharedTensor x, dy;  // [T, D]
  Tensor dgate, dup;   // [T, F]
  Tensor hidden;       // [T, F] after SwiGLU
};

// x [T, D] -> y [T, D], overwritten or added to.
template <class Real>
FfnSaved ffn_forward(const FfnWeightsOf<Real>& w, SharedTensor x, View2<Real> y,
                     Write write = Write::Overwrite);
// dy [T, D] -> dx [T, D], overwritten or added to.
template <class Real>
FfnWeightWork ffn_backward_input(const FfnWeightsOf<Real>& w, SharedTensor dy, FfnSaved saved,
                                 View2<Real> dx, Write write = Write::Overwrite);
template <class Real>
void ffn_backward_weight(FfnWeightWork work, Precision precision, FfnGradients& dw);

}  // namespace minke

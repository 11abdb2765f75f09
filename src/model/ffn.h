// The feed-forward network of a dense layer, and the shared experts of an MoE layer.
//   y = (silu(x W_gate^T) * (x W_up^T)) W_down^T
#pragma once
#include "model/operand.h"

namespace minke {

// Bytes of a token, in Real numbers of R bytes (FP8 training: a value and its part of a
// scale, 1.03): x is shared, gate and up take 2 F R (2.06 F), hidden F R (BF16 2 F) where it is
// kept.
struct FfnSaved {
  Operand x;       // [T, D]
  Kept gate, up;   // [T, F] before SwiGLU
  Operand hidden;  // [T, F] after it; empty where B computes it again
};
struct FfnWeightWork {
  Operand x, dy;        // [T, D]
  GatedGradients unit;  // [T, F]
};

// x [T, D] -> y [T, D], overwritten or added to. FP8 training adds to `counts`, where given.
template <class Real>
FfnSaved ffn_forward(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w, Operand x,
                     View2<Real> y, Write write = Write::Overwrite,
                     Fp8LayerCounts* counts = nullptr);
// dy [T, D] -> dx [T, D], overwritten or added to.
template <class Real>
FfnWeightWork ffn_backward_input(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w,
                                 SharedTensor dy, FfnSaved saved, View2<Real> dx,
                                 Write write = Write::Overwrite, Fp8LayerCounts* counts = nullptr);
template <class Real>
void ffn_backward_weight(const ModelOf<Real>& model, FfnWeightWork work, FfnGradients& dw);

}  // namespace minke

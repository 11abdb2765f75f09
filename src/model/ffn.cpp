#include "model/ffn.h"

#include "ops/swiglu.h"

namespace minke {

FfnSaved ffn_forward(const FfnWeights& w, SharedTensor x, View2<float> y, Write write) {
  const Index T = x->extent(0), F = w.gate_proj.forward.n();
  FfnSaved s;
  s.gate = Tensor::uninitialized({T, F});
  s.up = Tensor::uninitialized({T, F});
  apply(w.gate_proj, x->v2(), s.gate.v2());
  apply(w.up_proj, x->v2(), s.up.v2());
  Tensor hidden = Tensor::uninitialized({T, F});
  swiglu_forward(s.gate.v2(), s.up.v2(), hidden.v2());
  apply(w.down_proj, hidden.v2(), y, write);
  s.x = std::move(x);
  return s;
}

// dhidden = dy W_down;  [dgate, dup] = dSwiGLU(dhidden);  dx = dgate W_gate + dup W_up
FfnWeightWork ffn_backward_input(const FfnWeights& w, SharedTensor dy, FfnSaved s, View2<float> dx,
                                 Write write) {
  const Index T = dy->extent(0), F = w.gate_proj.forward.n();
  FfnWeightWork work;
  work.hidden = Tensor::uninitialized({T, F});
  swiglu_forward(s.gate.v2(), s.up.v2(), work.hidden.v2());
  Tensor dhidden = Tensor::uninitialized({T, F});
  apply_transposed(w.down_proj, dy->v2(), dhidden.v2());
  swiglu_backward_input(dhidden.v2(), s.gate.v2(), s.up.v2(), s.gate.v2(), s.up.v2());
  work.dgate = std::move(s.gate);
  work.dup = std::move(s.up);
  apply_transposed(w.gate_proj, work.dgate.v2(), dx, write);
  apply_transposed(w.up_proj, work.dup.v2(), dx, Write::Add);
  work.x = std::move(s.x);
  work.dy = std::move(dy);
  return work;
}

void ffn_backward_weight(FfnWeightWork k, Precision precision, FfnGradients& dw) {
  linear_weight_gradient(k.dy->v2(), k.hidden.v2(), dw.down_proj.v2(), precision);
  linear_weight_gradient(k.dgate.v2(), k.x->v2(), dw.gate_proj.v2(), precision);
  linear_weight_gradient(k.dup.v2(), k.x->v2(), dw.up_proj.v2(), precision);
}

}  // namespace minke

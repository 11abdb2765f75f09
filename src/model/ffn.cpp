#include "model/ffn.h"

#include "ops/swiglu.h"

namespace minke {

template <class Real>
FfnSaved ffn_forward(const FfnWeightsOf<Real>& w, SharedTensor x, View2<Real> y, Write write) {
  const Index T = x->extent(0), F = w.gate_proj.n_outputs();
  FfnSaved s;
  s.gate = Tensor::uninitialized<Real>({T, F});
  s.up = Tensor::uninitialized<Real>({T, F});
  apply(w.gate_proj, x->v2<Real>(), s.gate.v2<Real>());
  apply(w.up_proj, x->v2<Real>(), s.up.v2<Real>());
  Tensor hidden = Tensor::uninitialized<Real>({T, F});
  swiglu_forward(s.gate.v2<Real>(), s.up.v2<Real>(), hidden.v2<Real>());
  apply(w.down_proj, hidden.v2<Real>(), y, write);
  s.x = std::move(x);
  return s;
}

// dhidden = dy W_down;  [dgate, dup] = dSwiGLU(dhidden);  dx = dgate W_gate + dup W_up
template <class Real>
FfnWeightWork ffn_backward_input(const FfnWeightsOf<Real>& w, SharedTensor dy, FfnSaved s,
                                 View2<Real> dx, Write write) {
  const Index T = dy->extent(0), F = w.gate_proj.n_outputs();
  FfnWeightWork work;
  work.hidden = Tensor::uninitialized<Real>({T, F});
  swiglu_forward(s.gate.v2<Real>(), s.up.v2<Real>(), work.hidden.v2<Real>());
  Tensor dhidden = Tensor::uninitialized<Real>({T, F});
  apply_transposed(w.down_proj, dy->v2<Real>(), dhidden.v2<Real>());
  swiglu_backward_input(dhidden.v2<Real>(), s.gate.v2<Real>(), s.up.v2<Real>(), s.gate.v2<Real>(),
                        s.up.v2<Real>());
  work.dgate = std::move(s.gate);
  work.dup = std::move(s.up);
  apply_transposed(w.gate_proj, work.dgate.v2<Real>(), dx, write);
  apply_transposed(w.up_proj, work.dup.v2<Real>(), dx, Write::Add);
  work.x = std::move(s.x);
  work.dy = std::move(dy);
  return work;
}

template <class Real>
void ffn_backward_weight(FfnWeightWork k, Precision precision, FfnGradients& dw) {
  linear_weight_gradient(k.dy->v2<Real>(), k.hidden.v2<Real>(), dw.down_proj.v2<Real>(), precision);
  linear_weight_gradient(k.dgate.v2<Real>(), k.x->v2<Real>(), dw.gate_proj.v2<Real>(), precision);
  linear_weight_gradient(k.dup.v2<Real>(), k.x->v2<Real>(), dw.up_proj.v2<Real>(), precision);
}

template decltype(ffn_forward<float>) ffn_forward<float>;
template decltype(ffn_forward<double>) ffn_forward<double>;
template decltype(ffn_backward_input<float>) ffn_backward_input<float>;
template decltype(ffn_backward_input<double>) ffn_backward_input<double>;
template decltype(ffn_backward_weight<float>) ffn_backward_weight<float>;
template decltype(ffn_backward_weight<double>) ffn_backward_weight<double>;

}  // namespace minke

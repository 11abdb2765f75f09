#include "model/ffn.h"

#include "ops/swiglu.h"

namespace minke {

template <class Real>
FfnSaved ffn_forward(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w, Operand x,
                     View2<Real> y, Write write, Fp8LayerCounts* counts) {
  const Index T = y.extent(0), F = w.gate_proj.n_outputs();
  FfnSaved s;
  Tensor gate = Tensor::uninitialized<Real>({T, F}), up = Tensor::uninitialized<Real>({T, F});
  Tensor hidden = Tensor::uninitialized<Real>({T, F});
  apply(w.gate_proj, x, gate.v2<Real>());
  apply(w.up_proj, x, up.v2<Real>());
  swiglu_forward(gate.v2<Real>(), up.v2<Real>(), hidden.v2<Real>());
  s.gate = keep(model, std::move(gate));
  s.up = keep(model, std::move(up));
  s.hidden = operand(model, share(std::move(hidden)), inputs_of(counts));
  apply(w.down_proj, s.hidden, y, write);
  if (model.recompute.swiglu) s.hidden = {};
  s.x = std::move(x);
  return s;
}

// dhidden = dy W_down;  [dgate, dup] = dSwiGLU(dhidden);  dx = dgate W_gate + dup W_up
template <class Real>
FfnWeightWork ffn_backward_input(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w,
                                 SharedTensor dy, FfnSaved s, View2<Real> dx, Write write,
                                 Fp8LayerCounts* counts) {
  const Index T = dy->extent(0), F = w.gate_proj.n_outputs();
  Tensor gate = restore(std::move(s.gate)), up = restore(std::move(s.up));
  FfnWeightWork work;
  work.hidden = s.hidden.defined() ? std::move(s.hidden) : swiglu_again(model, gate, up);
  work.dy = operand(model, std::move(dy), gradients_of(counts));
  Tensor dhidden = Tensor::uninitialized<Real>({T, F});
  apply_transposed(w.down_proj, work.dy, dhidden.v2<Real>());
  swiglu_backward_input(dhidden.v2<Real>(), gate.v2<Real>(), up.v2<Real>(), gate.v2<Real>(),
                        up.v2<Real>());
  work.dgate = operand(model, share(std::move(gate)), gradients_of(counts));
  work.dup = operand(model, share(std::move(up)), gradients_of(counts));
  apply_transposed(w.gate_proj, work.dgate, dx, write);
  apply_transposed(w.up_proj, work.dup, dx, Write::Add);
  work.x = std::move(s.x);
  return work;
}

template <class Real>
void ffn_backward_weight(const ModelOf<Real>& model, FfnWeightWork k, FfnGradients& dw) {
  weight_gradient(model, along_tokens(model, k.dy), along_tokens(model, k.hidden), dw.down_proj);
  const TokenOperand x = along_tokens(model, k.x);
  weight_gradient(model, along_tokens(model, k.dgate), x, dw.gate_proj);
  weight_gradient(model, along_tokens(model, k.dup), x, dw.up_proj);
}

template <class Real>
Operand swiglu_again(const ModelOf<Real>& model, const Tensor& gate, const Tensor& up) {
  Tensor hidden = Tensor::uninitialized<Real>(gate.shape());
  swiglu_forward(gate.v2<Real>(), up.v2<Real>(), hidden.v2<Real>());
  return operand(model, share(std::move(hidden)));
}

template decltype(ffn_forward<float>) ffn_forward<float>;
template decltype(ffn_forward<double>) ffn_forward<double>;
template decltype(ffn_backward_input<float>) ffn_backward_input<float>;
template decltype(ffn_backward_input<double>) ffn_backward_input<double>;
template decltype(ffn_backward_weight<float>) ffn_backward_weight<float>;
template decltype(ffn_backward_weight<double>) ffn_backward_weight<double>;
template decltype(swiglu_again<float>) swiglu_again<float>;
template decltype(swiglu_again<double>) swiglu_again<double>;

}  // namespace minke

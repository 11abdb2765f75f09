#include "model/ffn.h"

#include "ops/swiglu.h"

namespace minke {

template <class Real>
FfnSaved ffn_forward(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w, Operand x,
                     View2<Real> y, Write write, Fp8LayerCounts* counts) {
  const Index T = y.extent(0), F = w.gate_proj.n_outputs();
  FfnSaved s;
  Tensor gate = Tensor::uninitialized<Real>({T, F}), up = Tensor::uninitialized<Real>({T, F});
  apply(w.gate_proj, x, gate.v2<Real>());
  apply(w.up_proj, x, up.v2<Real>());
  s.hidden = swiglu_operand(model, gate, up, inputs_of(counts));
  s.gate = keep(model, std::move(gate));
  s.up = keep(model, std::move(up));
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
  work.hidden = s.hidden.defined() ? std::move(s.hidden) : swiglu_operand(model, gate, up);
  work.dy = operand(model, std::move(dy), gradients_of(counts));
  Tensor dhidden = Tensor::uninitialized<Real>({T, F});
  apply_transposed(w.down_proj, work.dy, dhidden.v2<Real>());
  BranchGradients branches =
      swiglu_gradients(model, dhidden, std::move(gate), std::move(up), gradients_of(counts));
  work.dgate = std::move(branches.dgate);
  work.dup = std::move(branches.dup);
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
Operand swiglu_operand(const ModelOf<Real>& model, const Tensor& gate, const Tensor& up,
                       Fp8Counts* counts) {
  Tensor hidden;
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    hidden = Tensor::uninitialized<Value>(gate.shape());
    swiglu_forward(gate.v2<Real>(), up.v2<Real>(), hidden.v2<Value>());
  });
  return operand(model, share(std::move(hidden)), counts);
}

template <class Real>
BranchGradients swiglu_gradients(const ModelOf<Real>& model, const Tensor& dhidden, Tensor gate,
                                 Tensor up, Fp8Counts* counts) {
  Tensor dgate, dup;
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    const auto made_of = [](Tensor& branch) {
      return std::is_same_v<Value, Real> ? std::move(branch)
                                         : Tensor::uninitialized<Value>(branch.shape());
    };
    const View2<const Real> a = std::as_const(gate).v2<Real>(), u = std::as_const(up).v2<Real>();
    dgate = made_of(gate);
    dup = made_of(up);
    swiglu_backward_input(dhidden.v2<Real>(), a, u, dgate.v2<Value>(), dup.v2<Value>());
  });
  return {operand(model, share(std::move(dgate)), counts),
          operand(model, share(std::move(dup)), counts)};
}

template decltype(ffn_forward<float>) ffn_forward<float>;
template decltype(ffn_forward<double>) ffn_forward<double>;
template decltype(ffn_backward_input<float>) ffn_backward_input<float>;
template decltype(ffn_backward_input<double>) ffn_backward_input<double>;
template decltype(ffn_backward_weight<float>) ffn_backward_weight<float>;
template decltype(ffn_backward_weight<double>) ffn_backward_weight<double>;
template decltype(swiglu_operand<float>) swiglu_operand<float>;
template decltype(swiglu_operand<double>) swiglu_operand<double>;
template decltype(swiglu_gradients<float>) swiglu_gradients<float>;
template decltype(swiglu_gradients<double>) swiglu_gradients<double>;

}  // namespace minke

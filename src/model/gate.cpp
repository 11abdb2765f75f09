#include "model/gate.h"

namespace minke {

template <class Real>
GateSaved gate_forward(const ModelConfig& c, const MoeWeightsOf<Real>& w, SharedTensor x) {
  const Index T = x->extent(0);
  GateSaved s;
  s.scores = Tensor::uninitialized<Real>({T, c.n_routed_experts});
  s.indices = Tensor::uninitialized(DType::I32, {T, c.num_experts_per_tok});
  s.weights = Tensor::uninitialized<Real>({T, c.num_experts_per_tok});
  Tensor logits = Tensor::uninitialized<Real>({T, c.n_routed_experts});
  apply(w.gate, x->v2<Real>(), logits.v2<Real>());
  route_forward(c.route_shape(), logits.v2<Real>(), w.e_score_correction_bias.vector(),
                s.scores.v2<Real>(), s.indices.view<std::int32_t, 2>(), s.weights.v2<Real>());
  s.x = std::move(x);
  return s;
}

template <class Real>
GateWeightWork gate_backward_input(const ModelConfig& c, const MoeWeightsOf<Real>& w,
                                   View2<const Real> dweights, GateSaved s, BalanceTerm& balance,
                                   View2<Real> dx) {
  const Index T = s.scores.extent(0), E = c.n_routed_experts;
  GateWeightWork work;
  work.dlogits = Tensor::uninitialized<Real>({T, E});
  const View2<Real> dscores = work.dlogits.v2<Real>();
  route_backward_weights(c.route_shape(), dweights, s.scores.v2<Real>(),
                         s.indices.view<std::int32_t, 2>(), dscores);
  if (balance.length > 0) {
    balance.f = Tensor(DType::F64, {T / balance.length, E});
    balance.p = Tensor(DType::F64, {T / balance.length, E});
    balance.loss = balance_loss(c.route_shape(), s.scores.v2<Real>(), balance.length, balance.alpha,
                                balance.f.view<double, 2>(), balance.p.view<double, 2>(), dscores);
  }
  route_backward_scores(dscores, s.scores.v2<Real>(), dscores);
  apply_transposed(w.gate, work.dlogits.v2<Real>(), dx, Write::Add);
  work.x = std::move(s.x);
  return work;
}

template <class Real>
void gate_backward_weight(GateWeightWork k, MoeGradients& dw) {
  linear_weight_gradient(k.dlogits.v2<Real>(), k.x->v2<Real>(), dw.gate.v2<Real>(),
                         Precision::Full);
}

template decltype(gate_forward<float>) gate_forward<float>;
template decltype(gate_forward<double>) gate_forward<double>;
template decltype(gate_backward_input<float>) gate_backward_input<float>;
template decltype(gate_backward_input<double>) gate_backward_input<double>;
template decltype(gate_backward_weight<float>) gate_backward_weight<float>;
template decltype(gate_backward_weight<double>) gate_backward_weight<double>;

}  // namespace minke

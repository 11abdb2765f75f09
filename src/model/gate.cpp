#include "model/gate.h"

namespace minke {

GateSaved gate_forward(const ModelConfig& c, const MoeWeights& w, SharedTensor x) {
  const Index T = x->extent(0);
  GateSaved s;
  s.scores = Tensor::uninitialized({T, c.n_routed_experts});
  s.indices = Tensor::uninitialized(DType::I32, {T, c.num_experts_per_tok});
  s.weights = Tensor::uninitialized({T, c.num_experts_per_tok});
  Tensor logits = Tensor::uninitialized({T, c.n_routed_experts});
  apply(w.gate, x->v2(), logits.v2());
  route_forward(c.route_shape(), logits.v2(), w.e_score_correction_bias.dense.v1(), s.scores.v2(),
                s.indices.view<std::int32_t, 2>(), s.weights.v2());
  s.x = std::move(x);
  return s;
}

GateWeightWork gate_backward_input(const ModelConfig& c, const MoeWeights& w,
                                   View2<const float> dweights, GateSaved s, BalanceTerm& balance,
                                   View2<float> dx) {
  const Index T = s.scores.extent(0), E = c.n_routed_experts;
  GateWeightWork work;
  work.dlogits = Tensor::uninitialized({T, E});
  const View2<float> dscores = work.dlogits.v2();
  route_backward_weights(c.route_shape(), dweights, s.scores.v2(),
                         s.indices.view<std::int32_t, 2>(), dscores);
  if (balance.length > 0) {
    balance.f = Tensor(DType::F64, {T / balance.length, E});
    balance.p = Tensor(DType::F64, {T / balance.length, E});
    balance.loss = balance_loss(c.route_shape(), s.scores.v2(), balance.length, balance.alpha,
                                balance.f.view<double, 2>(), balance.p.view<double, 2>(), dscores);
  }
  route_backward_scores(dscores, s.scores.v2(), dscores);
  apply_transposed(w.gate, work.dlogits.v2(), dx, Write::Add);
  work.x = std::move(s.x);
  return work;
}

void gate_backward_weight(GateWeightWork k, MoeGradients& dw) {
  linear_weight_gradient(k.dlogits.v2(), k.x->v2(), dw.gate.v2(), Precision::Full);
}

}  // namespace minke

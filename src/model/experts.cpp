#include "model/experts.h"

#include <vector>

#include "ops/swiglu.h"

namespace minke {
namespace {

// One matrix of every expert.
template <class Real>
std::vector<const WeightOf<Real>*> matrices(const MoeWeightsOf<Real>& w,
                                            WeightOf<Real> FfnWeightsOf<Real>::*part) {
  std::vector<const WeightOf<Real>*> all;
  all.reserve(w.experts.size());
  for (const FfnWeightsOf<Real>& e : w.experts) all.push_back(&(e.*part));
  return all;
}

template <class Real>
void gradient_grouped(MoeGradients& dw, Tensor FfnGradients::*part, View2<const Real> dy,
                      View2<const Real> x, std::span<const Index> offsets, Precision precision) {
  std::vector<View2<Real>> all;
  all.reserve(dw.experts.size());
  for (FfnGradients& e : dw.experts) all.push_back((e.*part).v2<Real>());
  linear_weight_gradient_grouped(dy, x, offsets, all, precision);
}

}  // namespace

template <class Real>
ExpertsSaved experts_forward(const MoeWeightsOf<Real>& w, std::span<const Index> offsets,
                             View2<const Real> rows, View2<Real> out) {
  using Ffn = FfnWeightsOf<Real>;
  const Index n = rows.extent(0), F = w.experts.front().gate_proj.n_outputs();
  ExpertsSaved s;
  s.gate = Tensor::uninitialized<Real>({n, F});
  s.up = Tensor::uninitialized<Real>({n, F});
  apply_grouped(matrices(w, &Ffn::gate_proj), rows, offsets, s.gate.v2<Real>());
  apply_grouped(matrices(w, &Ffn::up_proj), rows, offsets, s.up.v2<Real>());
  Tensor hidden = Tensor::uninitialized<Real>({n, F});
  swiglu_forward(s.gate.v2<Real>(), s.up.v2<Real>(), hidden.v2<Real>());
  apply_grouped(matrices(w, &Ffn::down_proj), hidden.v2<Real>(), offsets, out);
  return s;
}

// As ffn_backward_input, each product grouped by expert.
template <class Real>
ExpertsWeightWork experts_backward_input(const MoeWeightsOf<Real>& w,
                                         std::span<const Index> offsets, Tensor rows,
                                         Tensor drows_out, ExpertsSaved s, View2<Real> drows) {
  using Ffn = FfnWeightsOf<Real>;
  const Index n = rows.extent(0), F = w.experts.front().gate_proj.n_outputs();
  ExpertsWeightWork work;
  work.hidden = Tensor::uninitialized<Real>({n, F});
  swiglu_forward(s.gate.v2<Real>(), s.up.v2<Real>(), work.hidden.v2<Real>());
  Tensor dhidden = Tensor::uninitialized<Real>({n, F});
  apply_transposed_grouped(matrices(w, &Ffn::down_proj), drows_out.v2<Real>(), offsets,
                           dhidden.v2<Real>());
  swiglu_backward_input(dhidden.v2<Real>(), s.gate.v2<Real>(), s.up.v2<Real>(), s.gate.v2<Real>(),
                        s.up.v2<Real>());
  work.dgate = std::move(s.gate);
  work.dup = std::move(s.up);
  apply_transposed_grouped(matrices(w, &Ffn::gate_proj), work.dgate.v2<Real>(), offsets, drows);
  apply_transposed_grouped(matrices(w, &Ffn::up_proj), work.dup.v2<Real>(), offsets, drows,
                           Write::Add);
  work.rows = std::move(rows);
  work.drows_out = std::move(drows_out);
  return work;
}

template <class Real>
void experts_backward_weight(ExpertsWeightWork k, std::span<const Index> offsets,
                             Precision precision, MoeGradients& dw) {
  gradient_grouped<Real>(dw, &FfnGradients::down_proj, k.drows_out.v2<Real>(), k.hidden.v2<Real>(),
                         offsets, precision);
  gradient_grouped<Real>(dw, &FfnGradients::gate_proj, k.dgate.v2<Real>(), k.rows.v2<Real>(),
                         offsets, precision);
  gradient_grouped<Real>(dw, &FfnGradients::up_proj, k.dup.v2<Real>(), k.rows.v2<Real>(), offsets,
                         precision);
}

template <class Real>
MoeSaved moe_forward(const ModelConfig& c, const MoeWeightsOf<Real>& w, SharedTensor x,
                     View2<Real> y, std::span<std::int64_t> load) {
  MoeSaved s;
  s.gate = gate_forward(c, w, x);
  const auto indices = std::as_const(s.gate.indices).view<std::int32_t, 2>();
  if (!load.empty()) count_loads(indices, load);
  if (c.n_shared_experts > 0)
    s.shared = ffn_forward(w.shared_experts, x, y);
  else
    fill(y, 0);
  s.dispatch = std::make_unique<LocalDispatch>();
  s.dispatch->plan(indices, c.n_routed_experts);
  const Tensor rows = s.dispatch->send(x->v2<Real>());
  s.out = Tensor::uninitialized<Real>({rows.extent(0), c.hidden_size});
  s.experts = experts_forward<Real>(w, s.dispatch->offsets(), rows.v2<Real>(), s.out.v2<Real>());
  s.dispatch->combine(s.out.v2<Real>(), s.gate.weights.v2<Real>(), y);
  return s;
}

// The expert inputs are gathered again from the saved x instead of being kept.
template <class Real>
MoeWeightWork moe_backward_input(const ModelConfig& c, const MoeWeightsOf<Real>& w, SharedTensor dy,
                                 MoeSaved s, BalanceTerm& balance, View2<Real> dx) {
  MoeWeightWork work;
  Tensor dweights = Tensor::uninitialized<Real>(s.gate.weights.shape());
  Tensor drows_out = s.dispatch->combine_backward(dy->v2<Real>(), s.out.v2<Real>(),
                                                  s.gate.weights.v2<Real>(), dweights.v2<Real>());
  s.out = Tensor();
  Tensor rows = s.dispatch->send(s.gate.x->v2<Real>());
  Tensor drows = Tensor::uninitialized<Real>(rows.shape());
  work.experts =
      experts_backward_input(w, s.dispatch->offsets(), std::move(rows), std::move(drows_out),
                             std::move(s.experts), drows.v2<Real>());
  if (c.n_shared_experts > 0)
    work.shared = ffn_backward_input(w.shared_experts, dy, std::move(s.shared), dx);
  else
    fill(dx, 0);
  s.dispatch->send_backward(drows.v2<Real>(), dx);
  work.gate = gate_backward_input<Real>(c, w, dweights.v2<Real>(), std::move(s.gate), balance, dx);
  work.dispatch = std::move(s.dispatch);
  return work;
}

template <class Real>
void moe_backward_weight(const ModelConfig& c, MoeWeightWork k, Precision precision,
                         MoeGradients& dw) {
  experts_backward_weight<Real>(std::move(k.experts), k.dispatch->offsets(), precision, dw);
  if (c.n_shared_experts > 0)
    ffn_backward_weight<Real>(std::move(k.shared), precision, dw.shared_experts);
  gate_backward_weight<Real>(std::move(k.gate), dw);
}

template decltype(experts_forward<float>) experts_forward<float>;
template decltype(experts_forward<double>) experts_forward<double>;
template decltype(experts_backward_input<float>) experts_backward_input<float>;
template decltype(experts_backward_input<double>) experts_backward_input<double>;
template decltype(experts_backward_weight<float>) experts_backward_weight<float>;
template decltype(experts_backward_weight<double>) experts_backward_weight<double>;
template decltype(moe_forward<float>) moe_forward<float>;
template decltype(moe_forward<double>) moe_forward<double>;
template decltype(moe_backward_input<float>) moe_backward_input<float>;
template decltype(moe_backward_input<double>) moe_backward_input<double>;
template decltype(moe_backward_weight<float>) moe_backward_weight<float>;
template decltype(moe_backward_weight<double>) moe_backward_weight<double>;

}  // namespace minke

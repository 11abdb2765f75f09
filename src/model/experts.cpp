#include "model/experts.h"

namespace minke {
namespace {

// One matrix of every expert.
template <class Real>
BlockVector<const WeightOf<Real>*> matrices(const MoeWeightsOf<Real>& w,
                                            WeightOf<Real> FfnWeightsOf<Real>::*part) {
  BlockVector<const WeightOf<Real>*> all;
  all.reserve(w.experts.size());
  for (const FfnWeightsOf<Real>& e : w.experts) all.push_back(&(e.*part));
  return all;
}

template <class Real>
void gradient_grouped(const ModelOf<Real>& model, MoeGradients& dw, Tensor FfnGradients::*part,
                      const TokenOperand& dy, const TokenOperand& x,
                      std::span<const Index> offsets) {
  BlockVector<View2<Real>> all;
  all.reserve(offsets.size());
  for (FfnGradients& e : dw.experts) {
    Tensor& dmatrix = e.*part;
    if (dmatrix.rank() == 2)
      all.push_back(dmatrix.v2<Real>());
    else
      for (Index s = 0; s < dmatrix.extent(0); ++s) all.push_back(dmatrix.v3<Real>()[s]);
  }
  MINKE_ASSERT(all.size() + 1 == offsets.size());
  weight_gradient_grouped<Real>(model, dy, x, offsets, all);
}

Operand operand_of(Tensor rows) {
  return {share(std::move(rows)), nullptr};
}
Operand operand_of(Fp8Rows rows) {
  return {nullptr, std::make_shared<const Fp8Rows>(std::move(rows))};
}

template <class Real>
void begin_send(Dispatch& dispatch, const Operand& x) {
  with_view<Real>(x, [&](const auto& view) { dispatch.begin_send(view); });
}

template <class Real>
Operand sent(Dispatch& dispatch, const Operand& x) {
  return with_view<Real>(x, [&](const auto& view) { return operand_of(dispatch.send(view)); });
}

template <class Real>
Operand sent_again(Dispatch& dispatch, const Operand& x) {
  return with_view<Real>(x,
                         [&](const auto& view) { return operand_of(dispatch.send_again(view)); });
}

}  // namespace

template <class Real>
ExpertsSaved experts_forward(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                             std::span<const Index> offsets, const Operand& rows, View2<Real> out,
                             Fp8LayerCounts* counts) {
  using Ffn = FfnWeightsOf<Real>;
  const Index n = out.extent(0), F = w.experts.front().gate_proj.n_outputs();
  ExpertsSaved s;
  Tensor gate = Tensor::uninitialized<Real>({n, F}), up = Tensor::uninitialized<Real>({n, F});
  s.hidden = apply_gated<Real>(model, matrices(w, &Ffn::gate_proj), matrices(w, &Ffn::up_proj),
                               rows, offsets, gate, up, inputs_of(counts));
  s.gate = keep(model, std::move(gate));
  s.up = keep(model, std::move(up));
  apply_grouped<Real>(matrices(w, &Ffn::down_proj), s.hidden, offsets, out);
  if (model.recompute.swiglu) s.hidden = {};
  return s;
}

// As ffn_backward_input, each product grouped by expert.
template <class Real>
ExpertsWeightWork experts_backward_input(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                                         std::span<const Index> offsets, Operand rows,
                                         Tensor drows_out, ExpertsSaved s, View2<Real> drows,
                                         Fp8LayerCounts* counts) {
  using Ffn = FfnWeightsOf<Real>;
  Tensor gate = restore(std::move(s.gate)), up = restore(std::move(s.up));
  ExpertsWeightWork work;
  work.drows_out = operand(model, share(std::move(drows_out)), gradients_of(counts));
  work.unit = gated_gradients<Real>(model, matrices(w, &Ffn::down_proj), work.drows_out, offsets,
                                    std::move(gate), std::move(up), std::move(s.hidden),
                                    gradients_of(counts));
  apply_gated_transposed<Real>(matrices(w, &Ffn::gate_proj), matrices(w, &Ffn::up_proj), work.unit,
                               offsets, drows);
  work.rows = std::move(rows);
  return work;
}

template <class Real>
void experts_backward_weight(const ModelOf<Real>& model, ExpertsWeightWork k,
                             std::span<const Index> offsets, MoeGradients& dw) {
  gradient_grouped(model, dw, &FfnGradients::down_proj, along_tokens(model, k.drows_out, offsets),
                   along_tokens(model, k.unit.hidden, offsets), offsets);
  const TokenOperand rows = along_tokens(model, k.rows, offsets);
  gradient_grouped(model, dw, &FfnGradients::gate_proj, along_tokens(model, k.unit.dgate, offsets),
                   rows, offsets);
  gradient_grouped(model, dw, &FfnGradients::up_proj, along_tokens(model, k.unit.dup, offsets),
                   rows, offsets);
}

bool is_by_source(const MoeGradients& dw) {
  return dw.experts.front().gate_proj.rank() == 3;
}

template <class Real>
MoeSaved moe_forward(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w, SharedTensor x,
                     View2<Real> y, std::span<std::int64_t> load, Fp8LayerCounts* counts) {
  const ModelConfig& c = model.config;
  MoeSaved s;
  s.gate = gate_forward(c, w, x);
  const auto indices = std::as_const(s.gate.indices).view<std::int32_t, 2>();
  if (!load.empty()) count_loads(indices, load);
  s.x = operand(model, std::move(x), inputs_of(counts));
  s.dispatch =
      model.make_dispatch ? model.make_dispatch(w.layer) : std::make_unique<LocalDispatch>();
  s.dispatch->plan(indices, c.n_routed_experts);
  MINKE_ASSERT(s.dispatch->offsets().size() == w.experts.size() + 1);
  begin_send<Real>(*s.dispatch, s.x);
  s.dispatch->begin_combine(std::as_const(s.gate.weights).v2<Real>());
  if (c.n_shared_experts > 0)
    s.shared = ffn_forward(model, w.shared_experts, s.x, y, Write::Overwrite, counts);
  else
    fill(y, 0);
  const Operand rows = sent<Real>(*s.dispatch, s.x);
  Tensor out = Tensor::uninitialized<Real>({s.dispatch->offsets().back(), c.hidden_size});
  s.experts = experts_forward(model, w, s.dispatch->offsets(), rows, out.v2<Real>(), counts);
  s.dispatch->combine(out.v2<Real>(), s.gate.weights.v2<Real>(), y);
  s.out = keep(model, std::move(out));
  return s;
}

// The expert inputs are gathered again from the saved x instead of being kept.
template <class Real>
MoeWeightWork moe_backward_input(const ModelOf<Real>& model, const MoeWeightsOf<Real>& w,
                                 SharedTensor dy, MoeSaved s, BalanceTerm& balance, View2<Real> dx,
                                 Fp8LayerCounts* counts) {
  const ModelConfig& c = model.config;
  MoeWeightWork work;
  Tensor dweights = Tensor::uninitialized<Real>(s.gate.weights.shape());
  Tensor drows_out;
  {
    const Tensor out = restore(std::move(s.out));
    with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
      drows_out = Tensor::uninitialized<Value>(out.shape());
      s.dispatch->combine_backward(dy->v2<Real>(), out.v2<Real>(), s.gate.weights.v2<Real>(),
                                   drows_out.v2<Value>(), dweights.v2<Real>());
    });
  }
  Operand rows = sent_again<Real>(*s.dispatch, s.x);
  s.x = {};
  Tensor drows = Tensor::uninitialized<Real>(drows_out.shape());
  work.experts =
      experts_backward_input(model, w, s.dispatch->offsets(), std::move(rows), std::move(drows_out),
                             std::move(s.experts), drows.v2<Real>(), counts);
  s.dispatch->begin_send_backward(std::as_const(drows).v2<Real>());
  if (c.n_shared_experts > 0)
    work.shared = ffn_backward_input(model, w.shared_experts, std::move(dy), std::move(s.shared),
                                     dx, Write::Overwrite, counts);
  else
    fill(dx, 0);
  s.dispatch->send_backward(drows.v2<Real>(), dx);
  work.gate = gate_backward_input<Real>(c, w, dweights.v2<Real>(), std::move(s.gate), balance, dx);
  work.dispatch = std::move(s.dispatch);
  return work;
}

template <class Real>
void moe_backward_weight(const ModelOf<Real>& model, MoeWeightWork k, MoeGradients& dw) {
  experts_backward_weight(model, std::move(k.experts),
                          is_by_source(dw) ? k.dispatch->segments() : k.dispatch->offsets(), dw);
  if (model.config.n_shared_experts > 0)
    ffn_backward_weight(model, std::move(k.shared), dw.shared_experts);
  gate_backward_weight<Real>(std::move(k.gate), dw);
}

void forget_input(MoeSaved& s) {
  s.gate.x.reset();
  s.x = s.shared.x = {};
}

template <class Real>
void restore_input(const ModelOf<Real>& model, SharedTensor x, MoeSaved& s) {
  s.x = s.shared.x = operand(model, x);
  s.gate.x = std::move(x);
}

template decltype(experts_forward<float>) experts_forward<float>;
template decltype(experts_forward<double>) experts_forward<double>;
template decltype(experts_backward_input<float>) experts_backward_input<float>;
template decltype(experts_backward_input<double>) experts_backward_input<double>;
template decltype(experts_backward_weight<float>) experts_backward_weight<float>;
template decltype(experts_backward_weight<double>) experts_backward_weight<double>;
template decltype(restore_input<float>) restore_input<float>;
template decltype(restore_input<double>) restore_input<double>;
template decltype(moe_forward<float>) moe_forward<float>;
template decltype(moe_forward<double>) moe_forward<double>;
template decltype(moe_backward_input<float>) moe_backward_input<float>;
template decltype(moe_backward_input<double>) moe_backward_input<double>;
template decltype(moe_backward_weight<float>) moe_backward_weight<float>;
template decltype(moe_backward_weight<double>) moe_backward_weight<double>;

}  // namespace minke

#include "model/experts.h"

#include <vector>

#include "ops/swiglu.h"

namespace minke {
namespace {

using Part = Weight FfnWeights::*;

// One packed matrix of every expert.
std::vector<const PackedWeights*> packed(const MoeWeights& w, Part part, bool transposed) {
  std::vector<const PackedWeights*> all;
  all.reserve(w.experts.size());
  for (const FfnWeights& e : w.experts)
    all.push_back(transposed ? &(e.*part).transposed : &(e.*part).forward);
  return all;
}

void apply_grouped(const MoeWeights& w, Part part, View2<const float> x,
                   std::span<const Index> offsets, View2<float> y) {
  const auto all = packed(w, part, false);
  if ((w.experts.front().*part).fp8_product)
    linear_fp8_grouped(x, offsets, all, y);
  else
    linear_grouped(x, offsets, all, y);
}

void gradient_grouped(MoeGradients& dw, Tensor FfnGradients::*part, View2<const float> dy,
                      View2<const float> x, std::span<const Index> offsets, Precision precision) {
  std::vector<View2<float>> all;
  all.reserve(dw.experts.size());
  for (FfnGradients& e : dw.experts) all.push_back((e.*part).v2());
  linear_weight_gradient_grouped(dy, x, offsets, all, precision);
}

}  // namespace

ExpertsSaved experts_forward(const MoeWeights& w, std::span<const Index> offsets,
                             View2<const float> rows, View2<float> out) {
  const Index n = rows.extent(0), F = w.experts.front().gate_proj.forward.n();
  ExpertsSaved s;
  s.gate = Tensor::uninitialized({n, F});
  s.up = Tensor::uninitialized({n, F});
  apply_grouped(w, &FfnWeights::gate_proj, rows, offsets, s.gate.v2());
  apply_grouped(w, &FfnWeights::up_proj, rows, offsets, s.up.v2());
  Tensor hidden = Tensor::uninitialized({n, F});
  swiglu_forward(s.gate.v2(), s.up.v2(), hidden.v2());
  apply_grouped(w, &FfnWeights::down_proj, hidden.v2(), offsets, out);
  return s;
}

// As ffn_backward_input, each product grouped by expert.
ExpertsWeightWork experts_backward_input(const MoeWeights& w, std::span<const Index> offsets,
                                         Tensor rows, Tensor drows_out, ExpertsSaved s,
                                         View2<float> drows) {
  const Index n = rows.extent(0), F = w.experts.front().gate_proj.forward.n();
  ExpertsWeightWork work;
  work.hidden = Tensor::uninitialized({n, F});
  swiglu_forward(s.gate.v2(), s.up.v2(), work.hidden.v2());
  Tensor dhidden = Tensor::uninitialized({n, F});
  linear_grouped(drows_out.v2(), offsets, packed(w, &FfnWeights::down_proj, true), dhidden.v2());
  swiglu_backward_input(dhidden.v2(), s.gate.v2(), s.up.v2(), s.gate.v2(), s.up.v2());
  work.dgate = std::move(s.gate);
  work.dup = std::move(s.up);
  linear_grouped(work.dgate.v2(), offsets, packed(w, &FfnWeights::gate_proj, true), drows);
  linear_grouped(work.dup.v2(), offsets, packed(w, &FfnWeights::up_proj, true), drows, Write::Add);
  work.rows = std::move(rows);
  work.drows_out = std::move(drows_out);
  return work;
}

void experts_backward_weight(ExpertsWeightWork k, std::span<const Index> offsets,
                             Precision precision, MoeGradients& dw) {
  gradient_grouped(dw, &FfnGradients::down_proj, k.drows_out.v2(), k.hidden.v2(), offsets,
                   precision);
  gradient_grouped(dw, &FfnGradients::gate_proj, k.dgate.v2(), k.rows.v2(), offsets, precision);
  gradient_grouped(dw, &FfnGradients::up_proj, k.dup.v2(), k.rows.v2(), offsets, precision);
}

MoeSaved moe_forward(const ModelConfig& c, const MoeWeights& w, SharedTensor x, View2<float> y,
                     std::span<std::int64_t> load) {
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
  const Tensor rows = s.dispatch->send(x->v2());
  s.out = Tensor::uninitialized({rows.extent(0), c.hidden_size});
  s.experts = experts_forward(w, s.dispatch->offsets(), rows.v2(), s.out.v2());
  s.dispatch->combine(s.out.v2(), s.gate.weights.v2(), y);
  return s;
}

// The expert inputs are gathered again from the saved x instead of being kept.
MoeWeightWork moe_backward_input(const ModelConfig& c, const MoeWeights& w, SharedTensor dy,
                                 MoeSaved s, BalanceTerm& balance, View2<float> dx) {
  MoeWeightWork work;
  Tensor dweights = Tensor::uninitialized(s.gate.weights.shape());
  Tensor drows_out =
      s.dispatch->combine_backward(dy->v2(), s.out.v2(), s.gate.weights.v2(), dweights.v2());
  s.out = Tensor();
  Tensor rows = s.dispatch->send(s.gate.x->v2());
  Tensor drows = Tensor::uninitialized(rows.shape());
  work.experts = experts_backward_input(w, s.dispatch->offsets(), std::move(rows),
                                        std::move(drows_out), std::move(s.experts), drows.v2());
  if (c.n_shared_experts > 0)
    work.shared = ffn_backward_input(w.shared_experts, dy, std::move(s.shared), dx);
  else
    fill(dx, 0);
  s.dispatch->send_backward(drows.v2(), dx);
  work.gate = gate_backward_input(c, w, dweights.v2(), std::move(s.gate), balance, dx);
  work.dispatch = std::move(s.dispatch);
  return work;
}

void moe_backward_weight(const ModelConfig& c, MoeWeightWork k, Precision precision,
                         MoeGradients& dw) {
  experts_backward_weight(std::move(k.experts), k.dispatch->offsets(), precision, dw);
  if (c.n_shared_experts > 0)
    ffn_backward_weight(std::move(k.shared), precision, dw.shared_experts);
  gate_backward_weight(std::move(k.gate), dw);
}

}  // namespace minke

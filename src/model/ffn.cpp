#include "model/ffn.h"

#include <array>

namespace minke {

namespace {

// A matrix as that of the only expert, which all rows are for.
template <class Real>
struct One {
  const WeightOf<Real>* w;
  explicit One(const WeightOf<Real>& weight) : w(&weight) {}
  operator std::span<const WeightOf<Real>* const>() const { return {&w, 1}; }
};
std::array<Index, 2> all(Index rows) {
  return {0, rows};
}

}  // namespace

template <class Real>
FfnSaved ffn_forward(const ModelOf<Real>& model, const FfnWeightsOf<Real>& w, Operand x,
                     View2<Real> y, Write write, Fp8LayerCounts* counts) {
  const Index T = y.extent(0), F = w.gate_proj.n_outputs();
  FfnSaved s;
  Tensor gate = Tensor::uninitialized<Real>({T, F}), up = Tensor::uninitialized<Real>({T, F});
  s.hidden = apply_gated<Real>(model, One(w.gate_proj), One(w.up_proj), x, all(T), gate, up,
                               inputs_of(counts));
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
  const Index T = dy->extent(0);
  Tensor gate = restore(std::move(s.gate)), up = restore(std::move(s.up));
  FfnWeightWork work;
  work.dy = operand(model, std::move(dy), gradients_of(counts));
  work.unit = gated_gradients<Real>(model, One(w.down_proj), work.dy, all(T), std::move(gate),
                                    std::move(up), std::move(s.hidden), gradients_of(counts));
  apply_gated_transposed<Real>(One(w.gate_proj), One(w.up_proj), work.unit, all(T), dx, write);
  work.x = std::move(s.x);
  return work;
}

template <class Real>
void ffn_backward_weight(const ModelOf<Real>& model, FfnWeightWork k, FfnGradients& dw) {
  weight_gradient(model, along_tokens(model, k.dy), along_tokens(model, k.unit.hidden),
                  dw.down_proj);
  const TokenOperand x = along_tokens(model, k.x);
  weight_gradient(model, along_tokens(model, k.unit.dgate), x, dw.gate_proj);
  weight_gradient(model, along_tokens(model, k.unit.dup), x, dw.up_proj);
}

template decltype(ffn_forward<float>) ffn_forward<float>;
template decltype(ffn_forward<double>) ffn_forward<double>;
template decltype(ffn_backward_input<float>) ffn_backward_input<float>;
template decltype(ffn_backward_input<double>) ffn_backward_input<double>;
template decltype(ffn_backward_weight<float>) ffn_backward_weight<float>;
template decltype(ffn_backward_weight<double>) ffn_backward_weight<double>;

}  // namespace minke

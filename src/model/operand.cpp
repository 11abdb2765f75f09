#include "model/operand.h"

#include "ops/gated_products.h"
#include "ops/permute.h"
#include "ops/swiglu.h"

namespace minke {
namespace {

template <class Real>
bool quantises(const ModelOf<Real>& model) {
  return model.fp8.has_value();
}

bool is_narrow(const SharedTensor& x) {
  return x->dtype() == DType::BF16;
}

Index rows_of(const Operand& x) {
  return x.fp8 ? x.fp8->codes.extent(0) : x.values->extent(0);
}

BlockVector<const PackedWeights*> packs(std::span<const Weight* const> w,
                                        PackedWeights Weight::*pack) {
  BlockVector<const PackedWeights*> all;
  all.reserve(w.size());
  for (const Weight* weight : w) all.push_back(&(weight->*pack));
  return all;
}

}  // namespace

template <class Real>
Operand operand(const ModelOf<Real>& model, SharedTensor x, Fp8Counts* counts) {
  if constexpr (std::is_same_v<Real, float>) {
    if (quantises(model))
      return {nullptr, std::make_shared<const Fp8Rows>(fp8_rows(x->v2(), *model.fp8, counts))};
    if (model.narrow_operands && !is_narrow(x)) return {share(rounded_to_bf16(x->v2())), nullptr};
  }
  return {std::move(x), nullptr};
}

template <class Real>
void apply(const WeightOf<Real>& w, const Operand& x, View2<Real> y, Write write) {
  if constexpr (std::is_same_v<Real, float>) {
    if (x.fp8) return linear(x.fp8->view(), w.forward, y, write);
    if (is_narrow(x.values)) return linear(x.values->v2<BF16>(), w.forward, y, write);
  }
  apply(w, x.values->v2<Real>(), y, write);
}

template <class Real>
void apply_transposed(const WeightOf<Real>& w, const Operand& dy, View2<Real> dx, Write write) {
  if constexpr (std::is_same_v<Real, float>) {
    if (dy.fp8) return linear(dy.fp8->view(), w.transposed, dx, write);
    if (is_narrow(dy.values)) return linear(dy.values->v2<BF16>(), w.transposed, dx, write);
  }
  apply_transposed(w, dy.values->v2<Real>(), dx, write);
}

template <class Real>
void apply_grouped(std::span<const WeightOf<Real>* const> w, const Operand& x,
                   std::span<const Index> offsets, View2<Real> y) {
  if constexpr (std::is_same_v<Real, float>) {
    const auto packed = [&] { return packs(w, &Weight::forward); };
    if (x.fp8) return linear_grouped(x.fp8->view(), offsets, packed(), y);
    if (is_narrow(x.values)) return linear_grouped(x.values->v2<BF16>(), offsets, packed(), y);
  }
  apply_grouped(w, x.values->v2<Real>(), offsets, y);
}

template <class Real>
void apply_transposed_grouped(std::span<const WeightOf<Real>* const> w, const Operand& dy,
                              std::span<const Index> offsets, View2<Real> dx, Write write) {
  if constexpr (std::is_same_v<Real, float>) {
    const auto packed = [&] { return packs(w, &Weight::transposed); };
    if (dy.fp8) return linear_grouped(dy.fp8->view(), offsets, packed(), dx, write);
    if (is_narrow(dy.values))
      return linear_grouped(dy.values->v2<BF16>(), offsets, packed(), dx, write);
  }
  apply_transposed_grouped(w, dy.values->v2<Real>(), offsets, dx, write);
}

namespace {

InputArithmetic input_arithmetic(const Weight& w) {
  return w.fp8_product ? InputArithmetic::QuantizedToFp8 : InputArithmetic::OfForm;
}

}  // namespace

template <class Real>
Operand apply_gated(const ModelOf<Real>& model, std::span<const WeightOf<Real>* const> w_gate,
                    std::span<const WeightOf<Real>* const> w_up, const Operand& x,
                    std::span<const Index> offsets, Tensor& gate, Tensor& up, Fp8Counts* counts) {
  Tensor hidden;
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    hidden = Tensor::uninitialized<Value>(gate.shape());
    if constexpr (std::is_same_v<Real, float>)
      if (const Weight& g = *w_gate.front(), &u = *w_up.front(); g.fp8_product == u.fp8_product)
        return with_view<Real>(x, [&](const auto& rows) {
          gated_forward(rows, offsets, packs(w_gate, &Weight::forward),
                        packs(w_up, &Weight::forward), gate.v2(), up.v2(), hidden.v2<Value>(),
                        input_arithmetic(g));
        });
    apply_grouped(w_gate, x, offsets, gate.v2<Real>());
    apply_grouped(w_up, x, offsets, up.v2<Real>());
    swiglu_forward(gate.v2<Real>(), up.v2<Real>(), hidden.v2<Value>());
  });
  return operand(model, share(std::move(hidden)), counts);
}

template <class Real>
GatedGradients gated_gradients(const ModelOf<Real>& model,
                               std::span<const WeightOf<Real>* const> w_down, const Operand& dy,
                               std::span<const Index> offsets, Tensor gate, Tensor up, Operand kept,
                               Fp8Counts* counts) {
  Tensor dhidden = Tensor::uninitialized<Real>(gate.shape());
  Tensor hidden, dgate, dup;
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    const View2<const Real> a = std::as_const(gate).v2<Real>(), u = std::as_const(up).v2<Real>();
    const auto made_of = [](Tensor& branch) {  // in its memory, where that fits
      return std::is_same_v<Value, Real> ? std::move(branch)
                                         : Tensor::uninitialized<Value>(branch.shape());
    };
    if (!kept.defined()) hidden = Tensor::uninitialized<Value>(gate.shape());
    dgate = made_of(gate);
    dup = made_of(up);
    const View2<Value> again = kept.defined() ? View2<Value>() : hidden.v2<Value>();
    if constexpr (std::is_same_v<Real, float>) {
      with_view<Real>(dy, [&](const auto& rows) {
        gated_backward(rows, offsets, packs(w_down, &Weight::transposed), a, u, dhidden.v2(), again,
                       dgate.v2<Value>(), dup.v2<Value>());
      });
    } else {
      apply_transposed_grouped(w_down, dy, offsets, dhidden.v2<Real>());
      if (!kept.defined()) swiglu_forward(a, u, again);
      swiglu_backward_input(dhidden.v2<Real>(), a, u, dgate.v2<Value>(), dup.v2<Value>());
    }
  });
  if (!kept.defined()) kept = operand(model, share(std::move(hidden)));
  return {std::move(kept), operand(model, share(std::move(dgate)), counts),
          operand(model, share(std::move(dup)), counts)};
}

template <class Real>
void apply_gated_transposed(std::span<const WeightOf<Real>* const> w_gate,
                            std::span<const WeightOf<Real>* const> w_up, const GatedGradients& x,
                            std::span<const Index> offsets, View2<Real> dx, Write write) {
  if constexpr (std::is_same_v<Real, float>) {
    const auto multiply = [&](const auto& dgate, const auto& dup) {
      gated_backward_input(dgate, dup, offsets, packs(w_gate, &Weight::transposed),
                           packs(w_up, &Weight::transposed), dx, write);
    };
    if (x.dgate.fp8) return multiply(x.dgate.fp8->view(), x.dup.fp8->view());
    const SharedTensor &dgate = x.dgate.values, &dup = x.dup.values;
    if (is_narrow(dgate)) return multiply(dgate->v2<BF16>(), dup->v2<BF16>());
    multiply(dgate->v2(), dup->v2());
  } else {
    apply_transposed_grouped(w_gate, x.dgate, offsets, dx, write);
    apply_transposed_grouped(w_up, x.dup, offsets, dx, Write::Add);
  }
}

template <class Real>
Kept keep(const ModelOf<Real>& model, Tensor x) {
  Kept kept;
  if constexpr (std::is_same_v<Real, float>)
    if (quantises(model)) {
      kept.fp8 = fp8_rows(x.v2(), *model.fp8);
      return kept;
    }
  kept.values = std::move(x);
  return kept;
}

Tensor restore(Kept kept) {
  if (!kept.fp8.defined()) return std::move(kept.values);
  Tensor x = Tensor::uninitialized(kept.fp8.codes.shape());
  dequantize(kept.fp8.view(), x.v2());
  return x;
}

template <class Real>
KeptOutput keep_attention_output(const ModelOf<Real>& model, SharedTensor x) {
  if constexpr (std::is_same_v<Real, float>)
    if (quantises(model)) return {nullptr, e5m6_rows(x->v2())};
  return {std::move(x), {}};
}

namespace {

Tensor widened(const E5m6Rows& rows) {
  Tensor x = Tensor::uninitialized({rows.codes.extent(0), rows.columns});
  dequantize(rows, x.v2());
  return x;
}

}  // namespace

SharedTensor values_of(const KeptOutput& kept) {
  return kept.values ? kept.values : share(widened(kept.e5m6));
}

template <class Real>
TokenOperand along_tokens(const ModelOf<Real>& model, const Operand& x,
                          std::span<const Index> offsets) {
  if constexpr (std::is_same_v<Real, float>)
    if (x.fp8) {
      const Index all[] = {0, rows_of(x)};
      return {nullptr, fp8_columns(x.fp8->view(), offsets.empty() ? all : offsets, *model.fp8)};
    }
  return {x.values, std::nullopt};
}

template <class Real>
TokenOperand along_tokens(const ModelOf<Real>& model, const KeptOutput& x) {
  if constexpr (std::is_same_v<Real, float>) {
    if (x.e5m6.defined()) {
      const Index all[] = {0, x.e5m6.codes.extent(0)};
      const Tensor values = widened(x.e5m6);
      return {nullptr, fp8_columns(values.v2(), all, *model.fp8)};
    }
    if (model.narrow_operands) return {share(rounded_to_bf16(x.values->v2())), std::nullopt};
  }
  return {x.values, std::nullopt};
}

template <class Real>
void weight_gradient(const ModelOf<Real>& model, const TokenOperand& dy, const TokenOperand& x,
                     Tensor& dw) {
  if constexpr (std::is_same_v<Real, float>) {
    if (dy.fp8) return linear_weight_gradient(*dy.fp8, *x.fp8, dw.v2());
    if (is_narrow(dy.values))
      return linear_weight_gradient(dy.values->v2<BF16>(), x.values->v2<BF16>(), dw.v2());
  }
  linear_weight_gradient(dy.values->v2<Real>(), x.values->v2<Real>(), dw.v2<Real>(),
                         model.precision());
}

template <class Real>
void weight_gradient_grouped(const ModelOf<Real>& model, const TokenOperand& dy,
                             const TokenOperand& x, std::span<const Index> offsets,
                             std::span<const View2<Real>> dw) {
  if constexpr (std::is_same_v<Real, float>) {
    if (dy.fp8) return linear_weight_gradient_grouped(*dy.fp8, *x.fp8, offsets, dw);
    if (is_narrow(dy.values))
      return linear_weight_gradient_grouped(dy.values->v2<BF16>(), x.values->v2<BF16>(), offsets,
                                            dw);
  }
  linear_weight_gradient_grouped(dy.values->v2<Real>(), x.values->v2<Real>(), offsets, dw,
                                 model.precision());
}

#define MINKE_INSTANTIATE(Real)                                                                  \
  template Operand operand(const ModelOf<Real>&, SharedTensor, Fp8Counts*);                      \
  template void apply(const WeightOf<Real>&, const Operand&, View2<Real>, Write);                \
  template void apply_transposed(const WeightOf<Real>&, const Operand&, View2<Real>, Write);     \
  template void apply_grouped(std::span<const WeightOf<Real>* const>, const Operand&,            \
                              std::span<const Index>, View2<Real>);                              \
  template void apply_transposed_grouped(std::span<const WeightOf<Real>* const>, const Operand&, \
                                         std::span<const Index>, View2<Real>, Write);            \
  template Operand apply_gated(const ModelOf<Real>&, std::span<const WeightOf<Real>* const>,     \
                               std::span<const WeightOf<Real>* const>, const Operand&,           \
                               std::span<const Index>, Tensor&, Tensor&, Fp8Counts*);            \
  template GatedGradients gated_gradients(                                                       \
      const ModelOf<Real>&, std::span<const WeightOf<Real>* const>, const Operand&,              \
      std::span<const Index>, Tensor, Tensor, Operand, Fp8Counts*);                              \
  template void apply_gated_transposed(                                                          \
      std::span<const WeightOf<Real>* const>, std::span<const WeightOf<Real>* const>,            \
      const GatedGradients&, std::span<const Index>, View2<Real>, Write);                        \
  template Kept keep(const ModelOf<Real>&, Tensor);                                              \
  template KeptOutput keep_attention_output(const ModelOf<Real>&, SharedTensor);                 \
  template TokenOperand along_tokens(const ModelOf<Real>&, const Operand&,                       \
                                     std::span<const Index>);                                    \
  template TokenOperand along_tokens(const ModelOf<Real>&, const KeptOutput&);                   \
  template void weight_gradient(const ModelOf<Real>&, const TokenOperand&, const TokenOperand&,  \
                                Tensor&);                                                        \
  template void weight_gradient_grouped(const ModelOf<Real>&, const TokenOperand&,               \
                                        const TokenOperand&, std::span<const Index>,             \
                                        std::span<const View2<Real>>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace minke

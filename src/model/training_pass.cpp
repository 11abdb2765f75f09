#include "model/training_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/stage.h"
#include "ops/cross_entropy.h"
#include "tensor/tensor.h"

namespace minke {

template <class Real>
PassResult forward_backward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                            const LossSettings& settings, ModelGradients& gradients,
                            bool keep_scores) {
  const StagePass pass{whole_model(model.config), settings, keep_scores};
  const GradientTargets targets{gradients, gradients.embed_tokens};
  PassResult result = start_result(model, pass.range);
  const std::size_t bytes_before = live_tensor_bytes();
  Tensor y, dx;
  StageSaved saved = stage_forward(model, pass, tokens, {}, y, targets, result);
  result.saved_bytes = static_cast<double>(live_tensor_bytes() - bytes_before);
  stage_backward(model, pass, {}, std::move(saved), dx, targets, result);
  add_up(result);
  return result;
}

template decltype(forward_backward<float>) forward_backward<float>;
template decltype(forward_backward<double>) forward_backward<double>;

namespace {

// f(begin, logits) for blocks of rows of the final norm h [T, D], so that few logits are in memory.
template <class F>
void for_logits(const Model& model, const Tensor& h, F f) {
  constexpr Index kRows = 1024;
  const Index T = h.extent(0);
  Tensor logits = Tensor::uninitialized({std::min(T, kRows), model.config.vocab_size});
  for (Index begin = 0; begin < T; begin += kRows) {
    const Index n = std::min(kRows, T - begin);
    const View2<float> z = logits.v2().rows(0, n);
    apply(model.weights.lm_head, h.v2().rows(begin, n), z);
    f(begin, z);
  }
}

bool all_finite(View1<const float> values) {
  for (Index i = 0; i < values.size(); ++i)
    if (!std::isfinite(values(i))) return false;
  return true;
}

}  // namespace

double evaluate_loss(const Model& model, View2<const std::int32_t> tokens, DocumentStarts starts) {
  const Index B = tokens.extent(0), T = tokens.extent(1) - 1;
  return output_loss(model, tokens,
                     layers_forward(model, whole_model(model.config), {B, T, starts},
                                    embed(model, token_window(tokens, 0, T))));
}

double output_loss(const Model& model, View2<const std::int32_t> tokens, const Tensor& x) {
  const Index B = tokens.extent(0), T = tokens.extent(1) - 1;
  Tensor rstd;
  const Tensor h = final_norm(model, x, rstd);
  const std::vector<std::int32_t> targets = token_window(tokens, 1, T);
  Tensor nll = Tensor::uninitialized({B * T});
  for_logits(model, h, [&](Index begin, View2<float> logits) {
    const Index n = logits.extent(0);
    cross_entropy_forward(
        logits,
        std::span(targets).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
        nll.v1().slice(0, begin, n));
  });
  double sum = 0;
  for (Index t = 0; t < B * T; ++t) sum += nll.v1()(t);
  return sum / static_cast<double>(B * T);
}

std::optional<NonFiniteOutput> find_non_finite_output(const Model& model,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts) {
  const SequenceBatch batch{tokens.extent(0), tokens.extent(1) - 1, starts};
  Tensor x = embed(model, token_window(tokens, 0, batch.length));
  if (!all_finite(x.flat())) return NonFiniteOutput{"embedding", std::nullopt};
  for (std::size_t i = 0; i < model.weights.layers.size(); ++i) {
    const auto layer = static_cast<Index>(i);
    Tensor y;
    const BlockSaved saved = block_forward(model, model.weights.layers[i], batch, std::move(x), y);
    if (!all_finite(saved.u.flat()))
      return NonFiniteOutput{fmt::format("layers.{}.attn_out", i), layer};
    if (!all_finite(y.flat())) return NonFiniteOutput{fmt::format("layers.{}.ffn_out", i), layer};
    x = std::move(y);
  }
  Tensor rstd;
  const Tensor h = final_norm(model, x, rstd);
  if (!all_finite(h.flat())) return NonFiniteOutput{"final_norm", std::nullopt};
  bool finite = true;
  for_logits(model, h, [&](Index, View2<float> logits) {
    for (Index t = 0; t < logits.extent(0); ++t) finite = finite && all_finite(logits[t]);
  });
  if (!finite) return NonFiniteOutput{"logits", std::nullopt};
  return std::nullopt;
}

}  // namespace minke

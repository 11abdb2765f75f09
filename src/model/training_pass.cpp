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

std::optional<NonFiniteOutput> find_non_finite_output(const Model& model, const StageRange& range,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts, Tensor& x) {
  std::optional<NonFiniteOutput> first;
  const auto look = [&](bool finite, std::string output, std::optional<Index> layer) {
    if (!finite && !first) first = {std::move(output), layer};
  };
  const SequenceBatch batch{tokens.extent(0), tokens.extent(1) - 1, starts};
  if (range.embedding) {
    x = embed(model, token_window(tokens, 0, batch.length));
    look(all_finite(x.flat()), "embedding", std::nullopt);
  }
  for (Index layer = range.first; layer < range.last; ++layer) {
    const BlockWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
    Tensor y;
    const BlockSaved saved = block_forward(model, w, batch, std::move(x), y);
    look(all_finite(saved.u.flat()), fmt::format("layers.{}.attn_out", layer), layer);
    look(all_finite(y.flat()), fmt::format("layers.{}.ffn_out", layer), layer);
    x = std::move(y);
  }
  if (!range.output || first) return first;
  Tensor rstd;
  const Tensor h = final_norm(model, x, rstd);
  look(all_finite(h.flat()), "final_norm", std::nullopt);
  bool finite = true;
  for_logits(model, h, [&](Index, View2<float> logits) {
    for (Index t = 0; t < logits.extent(0); ++t) finite = finite && all_finite(logits[t]);
  });
  look(finite, "logits", std::nullopt);
  return first;
}

std::optional<NonFiniteOutput> find_non_finite_output(const Model& model,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts) {
  Tensor x;
  return find_non_finite_output(model, whole_model(model.config), tokens, starts, x);
}

}  // namespace minke

#include "model/training_pass.h"

#include <algorithm>

#include "model/stage.h"
#include "ops/cross_entropy.h"
#include "tensor/block_cache.h"

namespace minke {

template <class Real>
PassResult forward_backward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                            const LossSettings& settings, ModelGradients& gradients,
                            bool keep_scores) {
  const StagePass pass{whole_model(model.config), settings, keep_scores};
  const GradientTargets targets{gradients, gradients.embed_tokens};
  PassResult result = start_result(model, pass.range);
  const std::size_t bytes_before = live_block_bytes();
  Tensor y, dx;
  StageSaved saved = stage_forward(model, pass, tokens, {}, y, targets, result);
  result.saved_bytes = static_cast<double>(live_block_bytes() - bytes_before);
  stage_backward(model, pass, {}, std::move(saved), dx, targets, result);
  add_up(result);
  return result;
}

template decltype(forward_backward<float>) forward_backward<float>;
template decltype(forward_backward<double>) forward_backward<double>;

double evaluate_loss(const Model& model, View2<const std::int32_t> tokens) {
  constexpr Index kRows = 1024;  // whose logits are in memory at a time
  const Index B = tokens.extent(0), T = tokens.extent(1) - 1;
  Tensor rstd;
  const Tensor h = final_norm(model,
                              layers_forward(model, whole_model(model.config), {B, T},
                                             embed(model, token_window(tokens, 0, T))),
                              rstd);
  const std::vector<std::int32_t> targets = token_window(tokens, 1, T);
  Tensor logits = Tensor::uninitialized({std::min(B * T, kRows), model.config.vocab_size});
  Tensor nll = Tensor::uninitialized({B * T});
  for (Index begin = 0; begin < B * T; begin += kRows) {
    const Index n = std::min(kRows, B * T - begin);
    const View2<float> z = logits.v2().rows(0, n);
    apply(model.weights.lm_head, h.v2().rows(begin, n), z);
    cross_entropy_forward(
        z, std::span(targets).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
        nll.v1().slice(0, begin, n));
  }
  double sum = 0;
  for (Index t = 0; t < B * T; ++t) sum += nll.v1()(t);
  return sum / static_cast<double>(B * T);
}

}  // namespace minke

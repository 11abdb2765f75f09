#include "train/training_step.h"

#include <algorithm>

#include "base/error.h"
#include "train/balance.h"

namespace minke {

template <class Real>
bool accumulate_gradients(TrainStateOf<Real>& state, View2<const std::int32_t> tokens,
                          const BatchSettings& settings, FunctionRef<bool()> stop,
                          PassResult& result) {
  result = {};
  const Index B = tokens.extent(0);
  const Index micro = settings.micro_batch > 0 ? std::min(settings.micro_batch, B) : B;
  for (Index begin = 0; begin < B; begin += micro) {
    if (stop()) {
      if (begin > 0) state.gradients = zero_parameters(state.config, dtype_of<Real>);
      return false;
    }
    const Index n = std::min(micro, B - begin);
    const LossSettings loss{.mtp_lambda = settings.mtp_lambda,
                            .alpha = settings.alpha,
                            .share = static_cast<double>(n) / static_cast<double>(B),
                            .balance_scope = settings.balance_scope,
                            .starts = starts_of_rows(settings.starts, begin, n)};
    PassResult part = forward_backward(state.model, tokens.rows(begin, n), loss, state.gradients,
                                       settings.keep_scores);
    if (begin == 0)
      result = std::move(part);
    else
      add_result(part, result);
  }
  return true;
}

template <class Real>
void apply_gradients(TrainStateOf<Real>& state, const OptimizerSettings& settings, double gamma,
                     const PassResult& result, double norm) {
  optimizer_step(state.config, settings, next_update(state), norm, state.gradients, state.moments,
                 state.masters);
  finish_update(state, gamma, result);
}

template <class Real>
void finish_update(TrainStateOf<Real>& state, double gamma, const PassResult& result) {
  for (const MoeLayerRecord& layer : result.moe) {
    if (!state.config.holds_layer(layer.layer)) continue;
    Tensor& bias = router_bias(state.config, state.masters, layer.layer);
    update_bias(gamma, layer.load, bias.v1<Real>());
  }
  refresh(state.model, state.masters);
  if (state.ema) update_ema(state.config, state.masters, next_update(state), *state.ema);
  ++state.step;
}

void skip_step(TrainState& state) {
  state.gradients = zero_parameters(state.config);
  ++state.step;
  ++state.skipped;
}

template decltype(accumulate_gradients<float>) accumulate_gradients<float>;
template decltype(accumulate_gradients<double>) accumulate_gradients<double>;
template decltype(apply_gradients<float>) apply_gradients<float>;
template decltype(apply_gradients<double>) apply_gradients<double>;
template decltype(finish_update<float>) finish_update<float>;

DocumentStarts starts_of_rows(DocumentStarts starts, Index first, Index n) {
  if (starts.empty()) return starts;
  return starts.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
}

void add_result(const PassResult& part, PassResult& sum) {
  sum.total += part.total;
  sum.main += part.main;
  sum.mtp += part.mtp;
  sum.balance += part.balance;
  for (std::size_t k = 0; k < sum.mtp_k.size(); ++k) sum.mtp_k[k] += part.mtp_k[k];
  for (std::size_t i = 0; i < sum.moe.size(); ++i) {
    MoeLayerRecord& layer = sum.moe[i];
    for (std::size_t e = 0; e < layer.load.size(); ++e) layer.load[e] += part.moe[i].load[e];
    layer.balance = {};
    layer.scores = {};
  }
  for (std::size_t i = 0; i < sum.fp8.size(); ++i) {
    sum.fp8[i].counts.x += part.fp8[i].counts.x;
    sum.fp8[i].counts.dy += part.fp8[i].counts.dy;
  }
}

Tensor& router_bias(const ModelConfig& config, ModelParameters<Tensor>& parameters, Index layer) {
  const Index L = config.num_hidden_layers;
  BlockParameters<Tensor>& block = layer < L
                                       ? parameters.layers[static_cast<std::size_t>(layer)]
                                       : parameters.mtp[static_cast<std::size_t>(layer - L)].block;
  MINKE_ASSERT(block.is_moe);
  return block.moe.e_score_correction_bias;
}

double worst_load_ratio(const PassResult& result) {
  double worst = 0;
  for (const MoeLayerRecord& layer : result.moe)
    worst = std::max(worst, worst_load_ratio(layer.load));
  return worst;
}

}  // namespace minke

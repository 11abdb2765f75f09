#include "model/stage.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "ops/embedding.h"

namespace minke {
namespace {

template <class Real>
Tensor layer_forward(const ModelOf<Real>& model, const StagePass& pass, Index layer,
                     SequenceBatch batch, Tensor x, PassResult& result,
                     std::vector<BlockSaved>& blocks) {
  MoeLayerRecord* record = moe_record(result, layer);
  Tensor y;
  BlockSaved saved = block_forward(
      model, model.weights.layers[static_cast<std::size_t>(layer)], batch, std::move(x), y,
      record ? std::span(record->load) : std::span<std::int64_t>{}, fp8_counts(result, layer));
  if (record && pass.keep_scores) record->scores = saved.moe.gate.scores.clone();
  blocks.push_back(std::move(saved));
  return y;
}

template <class Real>
void add_embedding_gradient(const Tensor& dembedding, std::span<const std::int32_t> ids,
                            ModelGradients& gradients) {
  embedding_backward_weight(dembedding.v2<Real>(), ids, gradients.embed_tokens.v2<Real>());
}

// B, and with `add_now` the W of every layer behind its B; `work` is then left empty.
template <class Real>
void backward(const ModelOf<Real>& model, const StagePass& pass, Tensor dy, StageSaved s,
              Tensor& dx, PassResult& result, const GradientTargets* add_now,
              StageWeightWork& work) {
  if (s.end) {
    PredictionsWeightWork end = predictions_backward_input(model, s.batch, pass.settings,
                                                           std::move(*s.end), dy, result, add_now);
    if (!add_now) work.end = std::move(end);
  }
  BalanceTerm none;
  for (std::size_t i = s.blocks.size(); i-- > 0;) {
    const Index layer = pass.range.first + static_cast<Index>(i);
    const auto at = static_cast<std::size_t>(layer);
    const BlockWeightsOf<Real>& w = model.weights.layers[at];
    Tensor below;
    BlockWeightWork block =
        block_backward_input(model, w, s.batch, std::move(dy), std::move(s.blocks[i]),
                             balance_term(result, layer, pass.settings, s.batch, none), below,
                             fp8_counts(result, layer));
    if (add_now)
      block_backward_weight(model, w, std::move(block), add_now->parameters.layers[at]);
    else
      work.layers.push_back({layer, std::move(block)});
    dy = std::move(below);
  }
  if (!pass.range.embedding) {
    dx = std::move(dy);
  } else if (add_now) {
    add_embedding_gradient<Real>(dy, s.ids, add_now->parameters);
  } else {
    work.ids = std::move(s.ids);
    work.dembedding = std::move(dy);
  }
}

}  // namespace

StageGradients zero_gradients(const ModelConfig& config, const StageRange& range, DType dtype,
                              std::optional<Index> n_sources) {
  StageGradients gradients;
  visit_parameters(config, range, gradients.parameters, [&](const ParameterSpec& spec, Tensor& t) {
    if (spec.role != Role::Embedding || range.embedding)
      t = Tensor(dtype, n_sources ? shape_by_source(spec, *n_sources) : spec.shape);
  });
  if (range.output && config.num_nextn_predict_layers > 0)
    gradients.embedding_of_mtp = Tensor(dtype, {config.vocab_size, config.hidden_size});
  return gradients;
}

std::vector<Tensor*> list_tensors(const ModelConfig& config, const StageRange& range,
                                  StageGradients& gradients) {
  std::vector<Tensor*> list;
  visit_parameters(config, range, gradients.parameters, [&](const ParameterSpec&, Tensor& t) {
    if (t.defined()) list.push_back(&t);
  });
  if (gradients.embedding_of_mtp.defined()) list.push_back(&gradients.embedding_of_mtp);
  return list;
}

void check_row_length(const ModelConfig& config, View2<const std::int32_t> tokens) {
  const Index T = tokens.extent(1) - 1, n_mtp = config.num_nextn_predict_layers;
  if (T < 1 + n_mtp)
    throw ShapeError(
        fmt::format("a row of {} tokens is too short to train on; {} MTP modules need "
                    "at least {}",
                    T + 1, n_mtp, n_mtp + 2));
}

template <class Real>
StageSaved stage_forward(const ModelOf<Real>& model, const StagePass& pass,
                         View2<const std::int32_t> tokens, Tensor x, Tensor& y,
                         const GradientTargets& gradients, PassResult& result) {
  check_row_length(model.config, tokens);
  StageSaved s;
  s.batch = {tokens.extent(0), tokens.extent(1) - 1, pass.settings.starts};
  if (pass.range.embedding) {
    s.ids = token_window(tokens, 0, s.batch.length);
    x = embed(model, s.ids);
  }
  for (Index layer = pass.range.first; layer < pass.range.last; ++layer)
    x = layer_forward(model, pass, layer, s.batch, std::move(x), result, s.blocks);
  if (pass.range.output)
    s.end = predictions_forward(model, tokens, pass.settings, pass.keep_scores, std::move(x),
                                gradients.parameters, result);
  else
    y = std::move(x);
  return s;
}

template <class Real>
void stage_backward_input(const ModelOf<Real>& model, const StagePass& pass, Tensor dy,
                          StageSaved saved, Tensor& dx, PassResult& result, StageWeightWork& work) {
  backward(model, pass, std::move(dy), std::move(saved), dx, result, nullptr, work);
}

template <class Real>
StageWeightWork stage_backward_input(const ModelOf<Real>& model, const StagePass& pass, Tensor dy,
                                     StageSaved saved, Tensor& dx, PassResult& result) {
  StageWeightWork work;
  stage_backward_input(model, pass, std::move(dy), std::move(saved), dx, result, work);
  return work;
}

template <class Real>
bool stage_backward_weight_part(const ModelOf<Real>& model, StageWeightWork& work,
                                const GradientTargets& gradients) {
  if (work.end) {
    predictions_backward_weight(model, std::move(*work.end), gradients);
    work.end.reset();
  } else if (!work.layers.empty()) {
    auto [layer, block] = std::move(work.layers.front());
    work.layers.pop_front();
    const auto at = static_cast<std::size_t>(layer);
    block_backward_weight(model, model.weights.layers[at], std::move(block),
                          gradients.parameters.layers[at]);
  } else if (work.dembedding.defined()) {
    add_embedding_gradient<Real>(std::exchange(work.dembedding, {}), work.ids,
                                 gradients.parameters);
  } else {
    return false;
  }
  return true;
}

template <class Real>
void stage_backward_weight(const ModelOf<Real>& model, StageWeightWork work,
                           const GradientTargets& gradients) {
  while (stage_backward_weight_part(model, work, gradients)) {
  }
}

template <class Real>
void stage_backward(const ModelOf<Real>& model, const StagePass& pass, Tensor dy, StageSaved saved,
                    Tensor& dx, const GradientTargets& gradients, PassResult& result) {
  StageWeightWork none;
  backward(model, pass, std::move(dy), std::move(saved), dx, result, &gradients, none);
}

template <class Real>
Tensor layers_forward(const ModelOf<Real>& model, const StageRange& range, SequenceBatch batch,
                      Tensor x) {
  for (Index layer = range.first; layer < range.last; ++layer) {
    Tensor y;
    block_forward(model, model.weights.layers[static_cast<std::size_t>(layer)], batch, std::move(x),
                  y);
    x = std::move(y);
  }
  return x;
}

template decltype(stage_forward<float>) stage_forward<float>;
template decltype(stage_forward<double>) stage_forward<double>;
#define MINKE_STAGE_BACKWARD_OF(Real)                                                            \
  template void stage_backward_input(const ModelOf<Real>&, const StagePass&, Tensor, StageSaved, \
                                     Tensor&, PassResult&, StageWeightWork&);                    \
  template StageWeightWork stage_backward_input(const ModelOf<Real>&, const StagePass&, Tensor,  \
                                                StageSaved, Tensor&, PassResult&);               \
  template decltype(stage_backward_weight_part<Real>) stage_backward_weight_part<Real>;          \
  template decltype(stage_backward_weight<Real>) stage_backward_weight<Real>;                    \
  template decltype(stage_backward<Real>) stage_backward<Real>;
MINKE_STAGE_BACKWARD_OF(float)
MINKE_STAGE_BACKWARD_OF(double)
#undef MINKE_STAGE_BACKWARD_OF

template decltype(layers_forward<float>) layers_forward<float>;

}  // namespace minke

#include "parallel/pipeline_loss.h"

#include <algorithm>
#include <limits>

#include "parallel/agreement.h"

namespace minke {
namespace {

constexpr int kTag = 4;  // run_pipeline has those before

std::span<std::byte> bytes_of(Tensor& rows) {
  return {static_cast<std::byte*>(rows.raw()), rows.bytes()};
}

}  // namespace

int forward_holder(int stage, int n_ranks) {
  return stage < n_ranks ? stage : 2 * n_ranks - 1 - stage;
}

namespace {

// f(number of the stage, x) on the ranks that hold the stages, first to last: x [rows, D] is what
// the stage before made of it, nothing for the first.
template <class F>
void through_stages(Communicator& pipeline, int n_stages, const Shape& rows, F&& f) {
  const auto holder = [&](int stage) { return forward_holder(stage, pipeline.size()); };
  Tensor x;  // between two stages of this rank
  for (int s = 0; s < n_stages; ++s) {
    if (holder(s) != pipeline.rank()) continue;
    if (s > 0 && holder(s - 1) != pipeline.rank()) {
      x = Tensor::uninitialized(rows);
      Request request = pipeline.receive(bytes_of(x), holder(s - 1), kTag);
      wait(request);
    }
    f(s, x);
    if (s + 1 < n_stages && holder(s + 1) != pipeline.rank()) {
      Request request = pipeline.send(bytes_of(x), holder(s + 1), kTag);
      wait(request);
    }
  }
}

constexpr int kNone = std::numeric_limits<int>::max();

// The least number of any rank.
int least(Communicator& ranks, int own) {
  std::vector<int> all(static_cast<std::size_t>(ranks.size()));
  Request request =
      ranks.all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(all)));
  wait(request);
  return *std::min_element(all.begin(), all.end());
}

}  // namespace

std::optional<double> pipeline_loss(const Model& model, Communicator& pipeline,
                                    const std::vector<StageRange>& stages,
                                    View2<const std::int32_t> tokens, DocumentStarts starts) {
  const SequenceBatch batch{tokens.extent(0), tokens.extent(1) - 1, starts};
  std::optional<double> loss;
  through_stages(pipeline, static_cast<int>(stages.size()),
                 {batch.rows(), model.config.hidden_size}, [&](int s, Tensor& x) {
                   const StageRange& stage = stages[static_cast<std::size_t>(s)];
                   if (s == 0) x = embed(model, token_window(tokens, 0, batch.length));
                   x = layers_forward(model, stage, batch, std::move(x));
                   if (stage.output) loss = output_loss(model, tokens, x);
                 });
  return loss;
}

std::optional<NonFiniteOutput> pipeline_non_finite_output(const Model& model,
                                                          Communicator& pipeline,
                                                          const std::vector<StageRange>& stages,
                                                          View2<const std::int32_t> tokens,
                                                          DocumentStarts starts) {
  std::optional<NonFiniteOutput> output;
  int first = kNone;  // stage with such an output on this rank
  const Index rows = tokens.extent(0) * (tokens.extent(1) - 1);
  through_stages(pipeline, static_cast<int>(stages.size()), {rows, model.config.hidden_size},
                 [&](int s, Tensor& x) {
                   auto found = find_non_finite_output(model, stages[static_cast<std::size_t>(s)],
                                                       tokens, starts, x);
                   if (found && first == kNone) first = s, output = std::move(found);
                 });
  const int stage = least(pipeline, first);
  if (stage == kNone) return std::nullopt;
  const int from = forward_holder(stage, pipeline.size());
  const bool own = pipeline.rank() == from;
  const std::string tensor = broadcast_text(pipeline, own ? output->tensor : "", from);
  const std::string layer =
      broadcast_text(pipeline, own && output->layer ? std::to_string(*output->layer) : "", from);
  return NonFiniteOutput{tensor, layer.empty() ? std::nullopt : std::optional(std::stoll(layer))};
}

}  // namespace minke

#include "parallel/pipeline_loss.h"

#include "model/training_pass.h"

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

std::optional<double> pipeline_loss(const Model& model, Communicator& pipeline,
                                    const std::vector<StageRange>& stages,
                                    View2<const std::int32_t> tokens, DocumentStarts starts) {
  const SequenceBatch batch{tokens.extent(0), tokens.extent(1) - 1, starts};
  const auto n_stages = static_cast<int>(stages.size());
  const auto holder = [&](int stage) { return forward_holder(stage, pipeline.size()); };
  std::optional<double> loss;
  Tensor x;  // between two stages of this rank
  for (int s = 0; s < n_stages; ++s) {
    if (holder(s) != pipeline.rank()) continue;
    const StageRange& stage = stages[static_cast<std::size_t>(s)];
    if (s == 0) {
      x = embed(model, token_window(tokens, 0, batch.length));
    } else if (holder(s - 1) != pipeline.rank()) {
      x = Tensor::uninitialized({batch.rows(), model.config.hidden_size});
      Request request = pipeline.receive(bytes_of(x), holder(s - 1), kTag);
      wait(request);
    }
    x = layers_forward(model, stage, batch, std::move(x));
    if (s == n_stages - 1) {
      loss = output_loss(model, tokens, x);
    } else if (holder(s + 1) != pipeline.rank()) {
      Request request = pipeline.send(bytes_of(x), holder(s + 1), kTag);
      wait(request);
    }
  }
  return loss;
}

}  // namespace minke

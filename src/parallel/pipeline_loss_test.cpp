#include "parallel/pipeline_loss.h"

#include <gtest/gtest.h>

#include "model/small_model.h"
#include "model/training_pass.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

// One stage a rank, and two, where the last rank hands on to itself and the first has the loss.
TEST(PipelineLossThreads, IsTheLossOfOneRank) {
  ModelConfig config = small_config(1);
  config.num_hidden_layers = 7;
  config.check("test");
  ModelParameters<Tensor> masters = small_parameters(config);
  const Model model = make_training_model(config, masters, Compute::Bf16);
  const Tensor ids = random_tokens(3, 9, config.vocab_size, 5);
  const auto tokens = ids.view<std::int32_t, 2>();
  const double want = evaluate_loss(model, tokens);
  for (const int n : {1, 2, 4})
    for (const int stages_each : {1, 2}) {
      const std::vector<StageRange> stages = cut_stages(config, n * stages_each);
      run_ranks(n,
                [&](Communicator& pipeline) {
                  const std::optional<double> loss = pipeline_loss(model, pipeline, stages, tokens);
                  const bool last = pipeline.rank() == (stages_each == 1 ? n - 1 : 0);
                  ASSERT_EQ(loss.has_value(), last) << n << " ranks";
                  if (last) {
                    EXPECT_EQ(*loss, want) << n << " ranks";
                  }
                },
                {.rendezvous = true});
    }
}

}  // namespace
}  // namespace minke

#include "infer/warm_up.h"

#include "infer/test_bench.h"

namespace minke {
namespace {

const WarmUpLimits kLong{.seconds = 600};

TEST(WarmUp, RunsAFullBatchWithDraftsAndAPromptToTheEndOfTheContext) {
  const Model model = small_engine_model(Compute::Fp32);
  const BatchSettings settings =
      resolve_settings(model, {.max_batch = 6, .context = 200, .prefill_chunk = 48});
  const WarmUp done = warm_up(model, settings, kLong);
  EXPECT_EQ(done.sequences, 6);
  EXPECT_EQ(done.prompt_tokens, 192);
  EXPECT_GT(done.steps, 3 * 6);
  EXPECT_GT(done.seconds, 0);
}

// Nothing may begin after the time is over, but the largest step is always run.
TEST(WarmUp, EndsInTimeAndWhenCancelled) {
  const Model model = small_engine_model(Compute::Fp32);
  const BatchSettings settings = resolve_settings(model, {.max_batch = 4});
  EXPECT_EQ(warm_up(model, settings, {.seconds = 0}).steps, 3);
  EXPECT_EQ(warm_up(model, settings, {.seconds = 0}).sequences, 4);
  EXPECT_EQ(warm_up(model, settings, {.cancelled = [] { return true; }}).steps, 0);
}

TEST(WarmUp, ManagesWithOneSequenceFewPagesOrNoModule) {
  for (const Index modules : {0, 1}) {
    const Model model = small_engine_model(Compute::Fp32, modules);
    const PageLayout layout{latent_row(model.config, cache_dtype(model)),
                            model.config.num_hidden_layers + modules};
    const auto page = static_cast<Index>(layout.bytes());
    for (const Index n_pages : {1, 3}) {
      const BatchSettings few =
          resolve_settings(model, {.max_batch = 5, .cache_bytes = n_pages * page});
      EXPECT_EQ(warm_up(model, few, kLong).prompt_tokens, n_pages * kKeyTile) << modules;
    }
    const BatchSettings one = resolve_settings(model, {.max_batch = 1, .prefill_chunk = 1});
    EXPECT_EQ(warm_up(model, one, kLong).sequences, 1) << modules;
    EXPECT_EQ(warm_up(model, resolve_settings(model, {.context = 8}), kLong).steps, 0);
  }
}

}  // namespace
}  // namespace minke

#include "train/dry_run.h"

#include "model/benchmark_models.h"
#include "train/small_run.h"

namespace minke {
namespace {

TEST_F(TrainingRun, ADryRunTellsWhatTheRunWillDo) {
  const Recipe r = recipe("run", {"ema.decay=0.9", "ema.dtype=bf16"});
  const DryRun dry = plan_run(r, {});
  const auto n = static_cast<double>(dry.parameters.total);
  EXPECT_EQ(dry.steps, 6);
  EXPECT_EQ(dry.tokens, 6 * 4 * 16);
  EXPECT_EQ(dry.memory.masters, 4 * n);
  EXPECT_EQ(dry.memory.ema, 2 * n);
  EXPECT_GT(dry.recompute.mla_up, 0);
  EXPECT_LT(dry.recompute.rmsnorm + dry.recompute.mla_up, dry.memory.activations);
  ASSERT_TRUE(dry.text);
  EXPECT_GT(dry.text->tokens, 0);
  EXPECT_GT(dry.speed.hours(1e9, 1e3), 0);
  EXPECT_EQ(dry.schedule.back().tokens, dry.tokens);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "run.run"));
  const Json json = to_json(dry);
  EXPECT_EQ(json["memory_bytes"]["total"].get<double>(), dry.memory.total());
  EXPECT_EQ(json["schedule"].size(), dry.schedule.size());
}

TEST_F(TrainingRun, ADryRunNeedsNeitherTextNorTokenizer) {
  Recipe r = recipe("run", {"model.vocab_size=300"});
  r.out.clear();
  r.data.paths.clear();
  r.data.tokenizer.clear();
  const DryRun dry = plan_run(r, {384, 0, 100});
  EXPECT_FALSE(dry.text);
  ASSERT_EQ(dry.schedule.size(), 3u);
  EXPECT_EQ(dry.schedule[1].tokens, 100);
  EXPECT_EQ(dry.schedule[1].step, 1);  // 64 tokens a step
  EXPECT_THROW(plan_run(r, {385}), ConfigError);
  r.model.vocab_size = 0;
  EXPECT_THROW(plan_run(r, {}), ConfigError);
}

TEST(TrainingSpeed, OperationsOfABenchmarkModel) {
  EXPECT_NEAR(training_flop_per_token(benchmark_model("mini"), 512), 0.191e9, 0.001e9);
}

}  // namespace
}  // namespace minke

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "model/benchmark_models.h"
#include "model/training_pass.h"
#include "train/training_memory.h"

namespace minke {
namespace {

// A model whose sizes are those of real ones to each other.
ModelConfig config_of(bool compressed_queries) {
  ModelConfig c = benchmark_model("mini");
  c.vocab_size = 50;
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.num_nextn_predict_layers = 1;
  c.n_routed_experts = 4;
  c.moe_intermediate_size = 128;
  if (!compressed_queries) c.q_lora_rank.reset();
  c.check("config_of");
  return c;
}

Recipe recipe_of(const std::string& compute, RecomputeRecipe recompute) {
  Recipe recipe;
  recipe.compute = compute;
  recipe.recompute = recompute;
  return recipe;
}

double measured_bytes_per_token(const Recipe& recipe, const ModelConfig& c,
                                ModelParameters<Tensor>& masters) {
  const Model model =
      make_training_model(c, masters, parse_compute(recipe.compute), recipe.training_form());
  ModelGradients gradients = zero_parameters(c);
  constexpr Index kRows = 2, kLength = 96;
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(kRows * (kLength + 1)), 3);
  // A thread's scratch memory, taken with its first task and kept, counts once: the least is right.
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 4; ++i) {
    const View2<const std::int32_t> rows(tokens.data(), {kRows, kLength + 1});
    least = std::min(least, forward_backward(model, rows, {}, gradients).saved_bytes);
  }
  return least / (kRows * kLength);
}

TEST(TrainingMemory, EstimateIsWithinTenPercentOfWhatIsKept) {
  for (bool compressed : {true, false}) {
    const ModelConfig c = config_of(compressed);
    ModelParameters<Tensor> masters = initial_parameters(c, 1);
    for (const char* compute : {"fp32", "bf16", "fp8"})
      for (const RecomputeRecipe& recompute :
           {RecomputeRecipe{false, false, true}, RecomputeRecipe{true, false, true},
            RecomputeRecipe{false, true, true}, RecomputeRecipe{true, true, true},
            RecomputeRecipe{false, false, false}}) {
        if (std::string(compute) == "fp8" && !recompute.swiglu) continue;
        const Recipe recipe = recipe_of(compute, recompute);
        const double measured = measured_bytes_per_token(recipe, c, masters);
        EXPECT_NEAR(saved_bytes_per_token(recipe, c), measured, 0.1 * measured)
            << compute << (recompute.rmsnorm ? " rmsnorm" : "")
            << (recompute.mla_up ? " mla_up" : "") << (recompute.swiglu ? "" : " no swiglu");
      }
  }
}

TEST(TrainingMemory, SavingsAreThoseOfEachSetting) {
  const ModelConfig c = config_of(true);
  const Recipe recipe = recipe_of("bf16", {});
  const RecomputeSavings s = recompute_savings(recipe, c);
  ModelParameters<Tensor> masters = initial_parameters(c, 1);
  const double measured = measured_bytes_per_token(recipe, c, masters);
  for (const auto& [recompute, saved] :
       {std::pair<RecomputeRecipe, double>{{true, false, true}, s.rmsnorm},
        {{false, true, true}, s.mla_up},
        {{false, false, false}, -s.swiglu}}) {
    const double other = measured_bytes_per_token(recipe_of("bf16", recompute), c, masters);
    EXPECT_NEAR(measured - other, saved, 0.1 * std::abs(saved));
  }
}

TEST(TrainingMemory, Fp8KeepsLess) {
  const ModelConfig c = config_of(true);
  EXPECT_LT(saved_bytes_per_token(recipe_of("fp8", {}), c),
            0.7 * saved_bytes_per_token(recipe_of("bf16", {}), c));
}

// Experts alone: half of them, and all else. Stages: about half of the layers; dualpipe has all of
// them on both ranks. Moments are divided by the replicas.
TEST(TrainingMemory, ALayoutDividesTheModel) {
  ModelConfig c = config_of(true);
  c.num_hidden_layers = 6;
  c.vocab_size = 2;
  c.check("test");
  Recipe recipe;
  recipe.data.batch_size = 8;
  recipe.data.micro_batch = 1;
  const TrainingMemory alone = training_memory(recipe, c);
  const auto of = [&](const ParallelRecipe& parallel, int n_ranks) {
    return training_memory(recipe, c, layout_of(parallel, n_ranks));
  };
  ModelConfig half = c;
  half.held_experts = ExpertRange{0, c.n_routed_experts / 2};
  const TrainingMemory experts = of({.experts = 2}, 2);
  EXPECT_EQ(experts.masters, 4 * static_cast<double>(count_parameters(half).total));
  EXPECT_EQ(experts.moments, alone.moments / 2);
  for (const char* schedule : {"1f1b", "dualpipev"}) {
    const TrainingMemory stage = of({.pipeline = 2, .schedule = schedule}, 2);
    EXPECT_NEAR(stage.masters, alone.masters / 2, 0.2 * alone.masters) << schedule;
    EXPECT_GE(stage.moments, alone.moments / 2) << schedule;
  }
  const TrainingMemory both = of({.pipeline = 2, .schedule = "dualpipe"}, 2);
  EXPECT_EQ(both.masters, alone.masters);
  EXPECT_EQ(both.moments, alone.moments / 2);
}

}  // namespace
}  // namespace minke

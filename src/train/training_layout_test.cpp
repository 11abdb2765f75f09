#include "train/training_layout.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/test_directory.h"
#include "model/parameters.h"
#include "model/small_model.h"

namespace minke {
namespace {

ModelConfig seven_layers() {
  ModelConfig config = small_config(1);
  config.num_hidden_layers = 7;
  config.check("test");
  return config;
}

std::set<std::string> names_of(const ModelConfig& config) {
  std::set<std::string> names;
  ModelParameters<int> unused;
  visit_parameters(config, unused,
                   [&](const ParameterSpec& spec, int&) { names.insert(spec.name); });
  return names;
}

TEST(TrainingLayout, OnlySoManyRanksMakeAMesh) {
  EXPECT_EQ(to_string(layout_of({.pipeline = 2, .experts = 2}, 8).mesh), "2x2x2");
  EXPECT_EQ(layout_of({.experts = 4}, 4).schedule, ScheduleKind::OneFOneB);
  EXPECT_EQ(layout_of({.pipeline = 4}, 4).schedule, ScheduleKind::DualPipe);
  EXPECT_EQ(layout_of({.experts = 2}, 2).schedule, ScheduleKind::OneFOneB);
  EXPECT_EQ(layout_of({.experts = 2, .schedule = "dualpipev"}, 2).schedule,
            ScheduleKind::DualPipeV);
  EXPECT_HOLDS(error_of([] { layout_of({.pipeline = 2, .experts = 2}, 6); }),
               "take a multiple of 4 ranks, but 6 were started; start 4 or 8");
  EXPECT_HOLDS(error_of([] { layout_of({.pipeline = 2}, 1); }),
               "a multiple of 2 ranks, but 1 was started; start 2,");
  EXPECT_HOLDS(error_of([] { layout_of({.pipeline = 3}, 3); }),
               "parallel.pipeline is 3, but dualpipe needs an even number of ranks: 2 or 4");
}

// Of every tensor: in one stage each, experts in one share each; the embedding also where MTP
// modules read it. Two ranks of dualpipe are replicas.
TEST(TrainingLayout, RanksHoldTheModelTogether) {
  const ModelConfig config = seven_layers();
  const std::set<std::string> all = names_of(config);
  const struct {
    ParallelRecipe recipe;
    int n_ranks, copies;
  } cases[] = {{{.pipeline = 4, .schedule = "1f1b"}, 4, 1},
               {{.pipeline = 4, .schedule = "dualpipe"}, 4, 2},
               {{.pipeline = 4, .schedule = "dualpipev"}, 4, 1},
               {{.pipeline = 2, .experts = 2, .schedule = "dualpipe"}, 8, 4},
               {{.experts = 4}, 4, 1},
               {{.experts = 4, .schedule = "dualpipev"}, 4, 1}};
  for (const auto& [recipe, n_ranks, copies] : cases) {
    const TrainingLayout layout = layout_of(recipe, n_ranks);
    std::map<std::string, int> holders;
    Index largest = 0;
    for (int rank = 0; rank < n_ranks; ++rank) {
      ModelConfig part = config;
      hold_part(layout, place_of(layout.mesh, rank), part);
      for (const std::string& name : names_of(part)) ++holders[name];
      largest = std::max(largest, count_parameters(part).total);
    }
    ASSERT_EQ(holders.size(), all.size());
    for (const auto& [name, n] : holders) {
      const bool routed = name.find(".experts.") != std::string::npos;
      const bool embedding = name.find("embed_tokens") != std::string::npos;
      if (embedding) continue;
      EXPECT_EQ(n, routed ? copies : copies * layout.mesh.expert) << name;
    }
    EXPECT_LT(largest, count_parameters(config).total);
  }
}

TEST(TrainingLayout, BatchesThatASchedulePipesAreNeeded) {
  const ModelConfig config = seven_layers();
  const auto refused = [&](Index batch, const ParallelRecipe& parallel, int n_ranks) {
    Recipe recipe;
    recipe.data.batch_size = batch;
    recipe.data.micro_batch = 2;
    recipe.parallel = parallel;
    return error_of([&] { check_layout(recipe, config, layout_of(parallel, n_ranks)); });
  };
  EXPECT_EQ(refused(16, {.pipeline = 4}, 4), "no error");
  EXPECT_HOLDS(refused(18, {.pipeline = 4}, 4),
               "data.micro_batch times pipelines = 2 x 1 x 2, at least 16, so that each pipeline "
               "has as many micro-batches as dualpipe takes: 16 or 20");
  EXPECT_HOLDS(refused(8, {.pipeline = 4}, 4), "takes: 16");
  EXPECT_EQ(refused(18, {.pipeline = 4, .schedule = "dualpipev"}, 4), "no error");
  EXPECT_EQ(refused(4, {.pipeline = 4, .schedule = "zb1p"}, 8), "no error");
  EXPECT_HOLDS(refused(16, {.experts = 3}, 3),
               "parallel.experts is 3, but must divide n_routed_experts = 8");
  EXPECT_HOLDS(refused(80, {.pipeline = 10}, 10), "use fewer pipeline ranks");
}

}  // namespace
}  // namespace minke

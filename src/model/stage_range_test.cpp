#include "model/stage_range.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "model/benchmark_models.h"
#include "model/small_model.h"

namespace minke {
namespace {

ModelConfig published_sizes() {
  ModelConfig c = *find_benchmark_model("v3-slice");
  c.vocab_size = 129280;
  c.num_hidden_layers = 61;
  c.num_nextn_predict_layers = 1;
  c.first_k_dense_replace = 3;
  return c;
}

void expect_whole(const ModelConfig& c, const std::vector<StageRange>& stages) {
  Index next = 0;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const bool last_stage = s + 1 == stages.size();
    EXPECT_EQ(stages[s].first, next);
    EXPECT_GE(stages[s].n_layers(), last_stage ? 0 : 1);
    EXPECT_EQ(stages[s].embedding, s == 0);
    EXPECT_EQ(stages[s].output, last_stage);
    next = stages[s].last;
  }
  EXPECT_EQ(next, c.num_hidden_layers);
}

double slowest(const ModelConfig& c, const std::vector<StageRange>& stages) {
  double most = 0;
  for (const StageRange& range : stages) most = std::max(most, stage_cost(c, range));
  return most;
}

TEST(StageRange, EveryLayerIsOnOneStage) {
  const ModelConfig c = small_config(2);
  for (Index n = 1; n <= c.num_hidden_layers + 1; ++n) {
    const std::vector<StageRange> stages = cut_stages(c, n);
    ASSERT_EQ(static_cast<Index>(stages.size()), n);
    expect_whole(c, stages);
  }
  EXPECT_EQ(cut_stages(c, 1).front(), whole_model(c));
}

TEST(StageRange, SizesThatDoNotFitAreRefused) {
  const ModelConfig c = small_config();
  EXPECT_THROW(cut_stages(c, 0), ConfigError);
  EXPECT_THROW(cut_stages(c, c.num_hidden_layers + 2), ConfigError);
}

// Against all cuts of a model into three stages.
TEST(StageRange, TheSlowestStageIsAsFastAsAnyCutAllows) {
  for (Index vocabulary : {61, 6000}) {
    ModelConfig c = small_config(1);
    c.num_hidden_layers = 9;
    c.vocab_size = vocabulary;
    const Index L = c.num_hidden_layers;
    double best = 1e300;
    for (Index a = 1; a < L; ++a)
      for (Index b = a + 1; b <= L; ++b)
        best = std::min(
            best, slowest(c, {{0, a, true, false}, {a, b, false, false}, {b, L, false, true}}));
    const std::vector<StageRange> stages = cut_stages(c, 3);
    expect_whole(c, stages);
    EXPECT_NEAR(slowest(c, stages), best, 1e-9 * best);
  }
}

// The published model on 16 stages: 61 layers of about the same cost, of which the head twice and
// an MTP module make up for more than four.
TEST(StageRange, ThePublishedModelInSixteenStages) {
  const ModelConfig c = published_sizes();
  const std::vector<StageRange> stages = cut_stages(c, 16);
  expect_whole(c, stages);
  const double layer = stage_cost(c, {10, 11, false, false});
  EXPECT_LT(slowest(c, stages), 5.05 * layer);
  for (std::size_t s = 0; s + 1 < stages.size(); ++s) {
    EXPECT_GE(stages[s].n_layers(), 4);
    EXPECT_LE(stages[s].n_layers(), 5);
  }
  EXPECT_LE(stages.back().n_layers(), 1);
}

// What the stages list together is what the model lists; the embedding twice, for MTP reads it.
TEST(StageRange, StagesListTheParametersOfTheModel) {
  struct Nothing {};
  const ModelConfig c = small_config(1);
  ModelParameters<Nothing> parameters;
  std::multiset<std::string> whole, parts;
  visit_parameters(c, parameters,
                   [&](const ParameterSpec& spec, Nothing&) { whole.insert(spec.name); });
  for (const StageRange& range : cut_stages(c, 3))
    visit_parameters(c, range, parameters,
                     [&](const ParameterSpec& spec, Nothing&) { parts.insert(spec.name); });
  whole.insert("model.embed_tokens.weight");
  EXPECT_EQ(parts, whole);
}

}  // namespace
}  // namespace minke

#include "plan/layout.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/memory.h"

namespace minke {
namespace {

const PlanModel& v3() {
  static const PlanModel model = plan_model_preset("deepseek-v3");
  return model;
}
const Cluster& h800() {
  static const Cluster c = cluster_preset("h800x2048");
  return c;
}

std::string refusal(const Layout& wanted) {
  try {
    complete_layout(v3(), h800(), wanted);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Layout, ReportRunIsCompletedAsReported) {
  const Layout l = complete_layout(v3(), h800(), {});
  EXPECT_EQ(l.pipeline, 16);
  EXPECT_EQ(l.expert, 64);
  EXPECT_EQ(l.data, 128);
  EXPECT_EQ(l.batch_sequences(), 15360);
  EXPECT_EQ(l.tokens_per_step(), 62914560);
}

TEST(Layout, NonsenseIsNamedWithTheNearestThatWorks) {
  EXPECT_NE(refusal({.pipeline = 64}).find("longer than the model's 61 layers; the nearest"),
            std::string::npos);
  EXPECT_NE(refusal({.expert = 48}).find("256 experts cannot be divided among 48"),
            std::string::npos);
  EXPECT_NE(refusal({.expert = 48}).find("--expert 64"), std::string::npos);
  EXPECT_NE(refusal({.pipeline = 15}).find("even number"), std::string::npos);
  EXPECT_NE(refusal({.micro_batches = 7}).find("at least 32"), std::string::npos);
  EXPECT_NE(refusal({.pipeline = 16, .data = 4096}).find("65536 devices"), std::string::npos);
  EXPECT_NE(refusal({.recompute = "none"}).find("GB"), std::string::npos);
  EXPECT_NE(refusal({.recompute = "none"}).find("--recompute selective"), std::string::npos);
  EXPECT_NE(refusal({.layers_per_stage = {30, 31}}).find("names 2 stages"), std::string::npos);
}

TEST(Layout, OfferedLayoutsWork) {
  for (const Layout& wanted :
       std::vector<Layout>{{.pipeline = 64}, {.expert = 48}, {.data = 3000}}) {
    const std::string text = refusal(wanted);
    Layout offered;
    offered.schedule = "dualpipe";
    const auto number = [&](const std::string& flag) {
      return std::stol(text.substr(text.find(flag) + flag.size()));
    };
    offered.pipeline = number("--pipeline ");
    offered.expert = number("--expert ");
    offered.data = number("--data ");
    offered.micro_batches = number("--micro-batches ");
    const std::size_t at = text.find("--recompute ") + 12;
    offered.recompute = text.substr(at, text.find(' ', at) - at);
    EXPECT_EQ(layout_problem(v3(), h800(), offered), "") << text;
  }
}

TEST(Layout, StagesHoldEveryLayerOnce) {
  for (const char* schedule : {"1f1b", "zb1p", "dualpipe", "dualpipev"})
    for (Index pipeline : {1, 2, 3, 16, 30}) {
      Layout l = report_layout();
      l.pipeline = pipeline;
      l.schedule = schedule;
      Index dense = 0, moe = 0;
      for (const StageContent& stage : stage_contents(v3(), l)) {
        dense += stage.dense_layers;
        moe += stage.moe_layers;
        EXPECT_GE(stage.layers(), 1);
      }
      EXPECT_EQ(dense, 3);
      EXPECT_EQ(moe, 58);
    }
}

// Table 2 of the report: PP and PP + 1 micro-batches in flight.
TEST(Layout, MicroBatchesInFlight) {
  Layout l = report_layout();
  for (Index rank = 0; rank < 16; ++rank) {
    Index held = 0;
    for (Index stage : hosted_stages(l, rank)) held += micro_batches_in_flight(l, stage);
    EXPECT_EQ(held, 17);
  }
  l.schedule = "1f1b";
  EXPECT_EQ(micro_batches_in_flight(l, 0), 16);
  EXPECT_EQ(micro_batches_in_flight(l, 15), 1);
  l.schedule = "zb1p";
  EXPECT_EQ(micro_batches_in_flight(l, 15), 16);
}

TEST(Layout, MoreRecomputationKeepsLess) {
  for (const bool moe : {false, true}) {
    const double none = activation_bytes(v3(), moe, Recompute::None, true);
    const double selective = activation_bytes(v3(), moe, Recompute::Selective, true);
    const double full = activation_bytes(v3(), moe, Recompute::Full, true);
    EXPECT_GT(none, selective);
    EXPECT_GT(selective, full);
    EXPECT_GT(activation_bytes(v3(), moe, Recompute::Selective, false), selective);
  }
}

TEST(Layout, ChosenForSmallerModels) {
  const PlanModel lite = plan_model_preset("deepseek-v2-lite");
  const Cluster c = cluster_preset("h100x64");
  const Layout l = complete_layout(lite, c, {});
  EXPECT_EQ(layout_problem(lite, c, l), "");
}

}  // namespace
}  // namespace minke

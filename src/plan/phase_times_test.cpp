#include "plan/phase_times.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/error.h"
#include "plan/search.h"

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

TEST(PhaseTimes, OneEntryAStageAndRank) {
  for (const char* schedule : {"1f1b", "zb1p", "dualpipe", "dualpipev"}) {
    Layout l = report_layout();
    l.schedule = schedule;
    const PhaseTimes t = phase_times(v3(), h800(), l, {});
    EXPECT_EQ(static_cast<Index>(t.stages.size()), l.stages());
    EXPECT_EQ(t.ops.size(), t.stages.size());
    EXPECT_EQ(static_cast<Index>(t.gradients.size()), l.pipeline);
    for (const OpSeconds& o : t.ops) {
      EXPECT_DOUBLE_EQ(o.B, o.BI + o.W);
      EXPECT_LE(o.FB, (o.F + o.B) * (1 + 1e-12));
      EXPECT_GT(o.W, 0);
    }
  }
}

// 0.135 to 0.144 s follow from the step parts of arXiv 2505.09343, table 4.
TEST(PhaseTimes, PairOfTheMiddleRanks) {
  const PhaseTimes t = phase_times(v3(), h800(), report_layout(), {});
  EXPECT_NEAR(t.ops[8].FB, 0.14, 0.005);
  EXPECT_FALSE(t.ops[8].exchange_bound);
}

TEST(PhaseTimes, SlowLinksBindThePair) {
  Cluster slow = h800();
  slow.link_between_bytes_per_s /= 20;
  const PhaseTimes t = phase_times(v3(), slow, report_layout(), {});
  EXPECT_TRUE(t.ops[8].exchange_bound);
  EXPECT_DOUBLE_EQ(t.ops[8].FB, 2 * (t.stages[8].dispatch + t.stages[8].combine));
}

TEST(PhaseTimes, BusyExpertsTakeLonger) {
  const PhaseTimes even = phase_times(v3(), h800(), report_layout(), {});
  const PhaseTimes busy = phase_times(v3(), h800(), report_layout(), {}, 1.5);
  EXPECT_GT(busy.ops[8].F, even.ops[8].F);
  EXPECT_DOUBLE_EQ(busy.stages[8].dispatch, 1.5 * even.stages[8].dispatch);
}

TEST(PhaseTimes, BalancedLayersAddUp) {
  for (const char* schedule : {"1f1b", "zb1p", "dualpipe", "dualpipev"})
    for (Index pipeline : {2, 4, 16, 30}) {
      Layout l = report_layout();
      l.pipeline = pipeline;
      l.schedule = schedule;
      l.micro_batches = 128;
      l.data = 32;
      l.expert = 32;
      const Layout balanced = with_balanced_layers(v3(), h800(), l, {});
      EXPECT_EQ(structure_problem(v3(), h800(), balanced), "") << schedule << " " << pipeline;
      EXPECT_LE(estimate_step(v3(), h800(), balanced, {}).pipeline_s,
                estimate_step(v3(), h800(), l, {}).pipeline_s * 1.001)
          << schedule << " " << pipeline;
    }
}

TEST(Search, RankedByTokensWithinMemory) {
  SearchSettings search;
  search.keep = 50;
  const SearchResult r = search_layouts(v3(), h800(), search, {});
  ASSERT_FALSE(r.best.empty());
  EXPECT_GE(r.tried, r.fit);
  for (std::size_t i = 0; i < r.best.size(); ++i) {
    EXPECT_EQ(layout_problem(v3(), h800(), r.best[i].layout), "");
    EXPECT_EQ(r.best[i].layout.batch_sequences(), 15360);
    EXPECT_FALSE(r.best[i].bound.empty());
    const RankedLayout& before = r.best[i > 0 ? i - 1 : 0];
    EXPECT_GE(r.best[i].step.step_s, before.step.step_s);
  }
}

TEST(SearchTimed, ThousandsOfLayoutsInSecondsAndWhyTheyFellOut) {
  SearchSettings search;
  search.keep = 10000;
  search.batch = 16384;
  const auto begin = std::chrono::steady_clock::now();
  const SearchResult r = search_layouts(v3(), cluster_preset("h800x1024"), search, {});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(r.tried, 1000);
  EXPECT_LT(seconds.count() / static_cast<double>(r.tried), 60.0 / 10000);
  Index sum = r.fit;
  for (const auto& [why, n] : r.dropped) sum += n;
  EXPECT_EQ(sum, r.looked_at);
}

TEST(Search, SimulationRanksTheBestAgain) {
  SearchSettings search;
  search.simulate = 12;
  const SearchResult r = search_layouts(v3(), h800(), search, {});
  ASSERT_EQ(r.best.size(), 12u);
  for (std::size_t i = 0; i < r.best.size(); ++i) {
    EXPECT_GT(r.best[i].simulated_s, 0.7 * r.best[i].step.step_s);
    EXPECT_GE(r.best[i].simulated_s, r.best[i > 0 ? i - 1 : 0].simulated_s);
  }
}

TEST(Search, RefusesWhatCannotWork) {
  SearchSettings search;
  search.batch = 7;
  EXPECT_THROW(search_layouts(v3(), h800(), search, {}), ConfigError);
  search.batch = 64;
  EXPECT_THROW(search_layouts(v3(), cluster_preset("h100"), search, {}), ConfigError);
}

}  // namespace
}  // namespace minke

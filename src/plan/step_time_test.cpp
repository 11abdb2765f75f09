#include "plan/step_time.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/report_facts.h"

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
Layout of_schedule(const char* schedule) {
  Layout l = report_layout();
  l.schedule = schedule;
  return l;
}

// Sizes for which every stage has the same layers and nothing else.
PlanModel equal_stages() {
  PlanModel m = v3();
  m.num_hidden_layers = 16;
  m.first_k_dense_replace = 0;
  m.num_nextn_predict_layers = 0;
  m.vocab_size = 1;
  return m;
}

TEST(StepTime, PartsAddUp) {
  for (const char* schedule : {"1f1b", "zb1p", "dualpipe", "dualpipev"})
    for (const double spread : {0.0, 0.3}) {
      const StepTime t = step_time(v3(), h800(), of_schedule(schedule), {}, {spread, 1});
      EXPECT_EQ(t.simulation.n_replicas(), spread > 0 ? 128 : 1);
      EXPECT_DOUBLE_EQ(t.step_s, t.pipeline_s + t.gradients_s + t.optimizer_s);
      for (const StepParts& p : t.ranks) {
        EXPECT_NEAR(p.F + p.B + p.W + p.FB + p.bubble, t.pipeline_s, 1e-9 * t.pipeline_s);
        EXPECT_GE(p.bubble, -1e-9);
      }
      EXPECT_NEAR(t.mfu * 989.4e12 / t.speed().tokens_per_s_per_device(), 250.46e9, 0.05e9);
    }
}

// With equal stages and messages that take no time the closed form is what is simulated.
TEST(StepTime, IsTheClosedFormWhereThatHolds) {
  Cluster c = h800();
  c.link_between_bytes_per_s = 1e30;  // no exchange, no message
  c.link_inside_bytes_per_s = 1e30;
  for (const char* schedule : {"1f1b", "dualpipe"}) {
    const Layout l = of_schedule(schedule);
    const StepTime t = step_time(equal_stages(), c, l, {});
    const StepEstimate e = estimate_step(equal_stages(), c, l, {});
    // The last stage has a head of one row, 7168 of its 660 M products.
    EXPECT_NEAR(t.step_s, e.step_s, 1e-4 * e.step_s) << schedule;
    EXPECT_NEAR(t.bubble_s, e.bubble_s, 1e-4 * e.step_s) << schedule;
  }
}

TEST(StepTime, UnequalExpertsCostTime) {
  const double even = step_time(v3(), h800(), report_layout(), {}).step_s;
  double before = even;
  for (const double spread : {0.1, 0.3}) {
    const double s = step_time(v3(), h800(), report_layout(), {}, {spread, 7}).step_s;
    EXPECT_GT(s, before);
    before = s;
  }
  EXPECT_EQ(before, step_time(v3(), h800(), report_layout(), {}, {0.3, 7}).step_s);
  EXPECT_NE(before, step_time(v3(), h800(), report_layout(), {}, {0.3, 8}).step_s);
}

// Efficiencies come from the pair's published time; the step of the whole was not fitted.
TEST(StepTime, GoldenReportRunWithBalancedRanks) {
  const Layout l = with_balanced_layers(v3(), h800(), report_layout(), {});
  const StepTime t = step_time(v3(), h800(), l, {});
  EXPECT_NEAR(t.step_s, facts::kStepSeconds, 0.05 * facts::kStepSeconds);
  EXPECT_GT(t.bubble_s, 0.8);
  EXPECT_LT(t.bubble_s, facts::StepParts{}.bubble);
  EXPECT_GT(step_time(v3(), h800(), report_layout(), {}).step_s, 1.1 * t.step_s);
}

TEST(StepTime, LargeJobsSimulateWholeGroups) {
  Layout l = report_layout();
  l.pipeline = 64;
  l.data = 256;
  l.micro_batches = 256;
  l.expert = 64;
  PlanModel m = v3();
  m.num_hidden_layers = 64;
  const StepTime t = step_time(m, cluster_preset("h800x16384"), l, {}, {0.2, 1});
  EXPECT_EQ(t.simulation.n_replicas(), 256);
}

}  // namespace
}  // namespace minke

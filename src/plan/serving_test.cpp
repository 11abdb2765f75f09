#include "plan/serving.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"

namespace minke {
namespace {

const PlanModel& v3() {
  static const PlanModel model = plan_model_preset("deepseek-v3");
  return model;
}

// Section 3.4 of the report, and the later overview.
TEST(Serving, GoldenUnits) {
  const auto check = [](const char* name, Index devices, Index data, double experts) {
    const ServingUnit u = serving_unit(name);
    EXPECT_EQ(u.devices(), devices) << name;
    EXPECT_EQ(u.attention_data(), data) << name;
    EXPECT_EQ(routed_experts_per_device(v3(), u), experts) << name;
    EXPECT_NO_THROW(check_serving_unit(v3(), u));
  };
  check("report-prefill", 32, 8, 9);
  check("report-decode", 320, 80, 1);
  check("production-prefill", 32, 32, 9);
  check("production-decode", 144, 144, 2);
}

TEST(Serving, RefusalsNameWhatWorks) {
  EXPECT_THROW(serving_unit("decode"), UsageError);
  ServingUnit u = serving_unit("production-decode");
  u.redundant_experts = 31;
  try {
    check_serving_unit(v3(), u);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("that works is 32"), std::string::npos);
  }
  ServingSettings many;
  many.sequences_per_device = 1000;
  EXPECT_THROW(
      serving_speed(v3(), cluster_preset("h800x2048"), serving_unit("production-decode"), many),
      ConfigError);
}

// The busiest device of random choices stays within the tolerance at that batch.
TEST(Serving, BatchForBalance) {
  const ServingUnit u = serving_unit("production-decode");
  const double batch = batch_for_balance(v3(), u, 0.2);
  std::mt19937 random(3);
  double above = 0;
  const int draws = 20;
  for (int d = 0; d < draws; ++d) {
    std::vector<int> load(144);
    const int tokens = static_cast<int>(batch) * 8;
    for (int i = 0; i < tokens; ++i) ++load[random() % 144];
    above += *std::max_element(load.begin(), load.end()) / (tokens / 144.0) - 1;
  }
  EXPECT_LT(above / draws, 0.2);
  EXPECT_GT(above / draws, 0.1);
}

TEST(Serving, SpeedHasItsBound) {
  const Cluster c = cluster_preset("h800x2048");
  const ServingSpeed s = serving_speed(v3(), c, serving_unit("production-decode"), {});
  EXPECT_DOUBLE_EQ(s.step_s, std::max(s.products_s + s.attention_s, s.exchange_s));
  EXPECT_GT(s.tokens_per_s_per_node, 14.8e3);  // an upper bound of what was reached
  EXPECT_GT(s.exchange_bound_s, s.exchange_s);
  const ServingSpeed prefill = serving_speed(v3(), c, serving_unit("production-prefill"), {});
  EXPECT_GT(prefill.tokens_per_s_per_node, 73.7e3 * (1 - 0.563));
}

}  // namespace
}  // namespace minke

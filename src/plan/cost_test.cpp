#include "plan/cost.h"

#include <gtest/gtest.h>

#include "plan/report_facts.h"

namespace minke {
namespace {

TEST(Cost, HoursAtTheUtilisationOfARunAreThoseOfTheRun) {
  const Cluster c = cluster_preset("h800x2048");
  const double flops = flops_per_token(plan_model_preset("deepseek-v3"), {}).train();
  const Speed speed = {15360.0 * 4096, 20, 2048};
  const double mfu =
      model_flops_utilisation(speed.tokens_per_s_per_device(), flops, c.peak_bf16_flops_per_s);
  EXPECT_NEAR(device_hours_at(mfu, 1e12, flops, c.peak_bf16_flops_per_s), speed.device_hours(1e12),
              1e-6);
  EXPECT_NEAR(tokens_per_s_per_device(1e12, speed.device_hours(1e12)),
              speed.tokens_per_s_per_device(), 1e-9);
}

TEST(Cost, TotalIsTheLastRow) {
  const auto rows = with_total({{"a", 1, run_cost(48, 2, 3)}, {"b", 2, run_cost(96, 2, 3)}});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[2].cost.hours, 144);
  EXPECT_EQ(rows[2].cost.days, 3);
  EXPECT_EQ(rows[2].cost.usd, 432);
  EXPECT_EQ(rows[2].tokens, 3);
}

// 87,072 USD a day are published; 562,027 USD come from counts of tokens that are printed rounded.
TEST(Cost, GoldenDayOfServing) {
  EXPECT_DOUBLE_EQ(facts::kServingDay.cost_usd(), 87072);
  EXPECT_NEAR(facts::kServingDay.revenue_usd(), 562027, 0.002 * 562027);
}

}  // namespace
}  // namespace minke

#include "train/batch_schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace minke {
namespace {

constexpr Index kReportTokens = 14'800'000'000'000;

BatchSchedule report_schedule(const std::string& shape = "linear") {
  return {15360, 4096, {.from = 3072, .tokens = 469'000'000'000, .shape = shape}};
}

// Step by step, from the definition.
struct Walk {
  Index tokens = 0;
  std::int64_t step = 0;
};

TEST(BatchSchedule, WithoutARampStepsAreEqual) {
  const BatchSchedule s(8, 256);
  EXPECT_EQ(s.rows(0), 8);
  EXPECT_EQ(s.rows(std::int64_t{1} << 40), 8);
  EXPECT_EQ(s.tokens_before(7), 7 * 2048);
  EXPECT_EQ(s.steps_until(0), 0);
  EXPECT_EQ(s.steps_until(1), 1);
  EXPECT_EQ(s.steps_until(2048), 1);
  EXPECT_EQ(s.steps_until(2049), 2);
  EXPECT_EQ(s.step_at(2047), 0);
  EXPECT_EQ(s.step_at(2048), 1);
}

TEST(BatchSchedule, TheReportsRun) {
  const BatchSchedule s = report_schedule();
  EXPECT_EQ(s.rows(0), 3072);
  EXPECT_EQ(s.rows_at(0), 3072);
  EXPECT_EQ(s.rows_at(234'500'000'000), 3072 + 6144);
  EXPECT_EQ(s.rows_at(468'999'999'999), 15359);
  EXPECT_EQ(s.rows_at(469'000'000'000), 15360);
  EXPECT_EQ(s.rows_at(kReportTokens), 15360);
  const std::int64_t after_ramp = s.steps_until(469'000'000'000);
  EXPECT_EQ(s.rows(after_ramp), 15360);
  EXPECT_LT(s.rows(after_ramp - 1), 15360);
  // 62.9M tokens a step, about 228K of them.
  EXPECT_EQ(s.tokens_before(after_ramp + 1) - s.tokens_before(after_ramp), 62'914'560);
  EXPECT_EQ((s.steps_until(kReportTokens) - after_ramp) / 1000, 227);
  EXPECT_NEAR(static_cast<double>(s.steps_until(kReportTokens) - after_ramp), 228e3, 500);
  // dt = r(t) T ds gives tokens / (T (to - from)) ln(to / from) = 14997 steps, rows not rounded.
  EXPECT_NEAR(static_cast<double>(after_ramp), 14997, 3);
}

TEST(BatchSchedule, StepsAndTokensAreEachOthersInverse) {
  for (const char* shape : {"linear", "geometric"}) {
    const BatchSchedule s(48, 16, {.from = 5, .tokens = 9001, .shape = shape, .multiple = 3});
    Walk walk;
    for (; walk.step < 60; ++walk.step) {
      ASSERT_EQ(s.tokens_before(walk.step), walk.tokens) << shape;
      ASSERT_EQ(s.rows(walk.step), s.rows_at(walk.tokens)) << shape << " step " << walk.step;
      const Index next = walk.tokens + 16 * s.rows_at(walk.tokens);
      ASSERT_EQ(s.step_at(walk.tokens), walk.step);
      ASSERT_EQ(s.step_at(next - 1), walk.step);
      ASSERT_EQ(s.steps_until(walk.tokens), walk.step);
      ASSERT_EQ(s.steps_until(walk.tokens + 1), walk.step + 1);
      walk.tokens = next;
    }
    EXPECT_EQ(s.rows(59), 48);
    EXPECT_GT(walk.tokens, 9001);
  }
}

// A step may be longer than several stages; sizes that no step begins with are passed over.
TEST(BatchSchedule, RampOfFewTokens) {
  const BatchSchedule s(1000, 8, {.from = 10, .tokens = 100});
  Index tokens = 0;
  for (int step = 0; step < 6; ++step) {
    EXPECT_EQ(s.tokens_before(step), tokens);
    EXPECT_EQ(s.rows(step), s.rows_at(tokens));
    tokens += 8 * s.rows_at(tokens);
  }
}

TEST(BatchSchedule, GeometricGrowsByEqualFactors) {
  const BatchSchedule s = report_schedule("geometric");
  EXPECT_EQ(s.rows_at(0), 3072);
  EXPECT_NEAR(static_cast<double>(s.rows_at(234'500'000'000)), 3072 * std::sqrt(5.0), 1);
  EXPECT_EQ(s.rows_at(469'000'000'000), 15360);
}

TEST(BatchSchedule, ThresholdsBeyondTheRangeOfAProduct) {
  const BatchSchedule s(Index{1} << 20, 16, {.from = 1, .tokens = Index{1} << 59});
  EXPECT_EQ(s.rows_at(Index{1} << 58), (Index{1} << 19));
  EXPECT_EQ(s.rows_at(Index{1} << 59), Index{1} << 20);
}

TEST(BatchSchedule, RefusesARampThatIsNone) {
  EXPECT_THROW(BatchSchedule(8, 16, {.from = 9, .tokens = 10}), ConfigError);
  EXPECT_THROW(BatchSchedule(8, 16, {.from = 4}), ConfigError);
  EXPECT_THROW(BatchSchedule(8, 16, {.tokens = 4}), ConfigError);
  EXPECT_EQ(BatchSchedule(8, 16, {.from = 8, .tokens = 100}).rows(0), 8);
}

}  // namespace
}  // namespace minke

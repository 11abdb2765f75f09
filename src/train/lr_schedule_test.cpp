#include "train/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace minke {
namespace {

// The report's 14.3T tokens in steps of 15360 sequences of 4096 tokens (its full batch; the ramp of
// the batch size makes the real run longer in steps).
LrSchedule report_schedule() {
  const double tokens_per_step = 15360.0 * 4096;
  return {.peak = 2.2e-4,
          .min = 2.2e-5,
          .warmup_steps = 2000,
          .constant_steps = std::llround(10e12 / tokens_per_step) - 2000,
          .decay_steps = std::llround(4.3e12 / tokens_per_step)};
}

TEST(LrSchedule, TheReportsNumbers) {
  const LrSchedule s = report_schedule();
  const std::int64_t constant_end = s.warmup_steps + s.constant_steps;
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 2.2e-4 / 2000);
  EXPECT_DOUBLE_EQ(learning_rate(s, 999), 1.1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1999), 2.2e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 100000), 2.2e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, constant_end), 2.2e-4);
  EXPECT_NEAR(learning_rate(s, constant_end + s.decay_steps / 2), 1.21e-4, 1e-8);
  EXPECT_NEAR(learning_rate(s, constant_end + s.decay_steps - 1), 2.2e-5, 1e-9);
  EXPECT_DOUBLE_EQ(learning_rate(s, constant_end + s.decay_steps), 2.2e-5);
  EXPECT_DOUBLE_EQ(learning_rate(s, std::numeric_limits<std::int64_t>::max()), 2.2e-5);
}

TEST(LrSchedule, NeverRisesAfterTheWarmUp) {
  const LrSchedule s{
      .peak = 1, .min = 0.1, .warmup_steps = 7, .constant_steps = 3, .decay_steps = 20};
  for (int step = 0; step < 40; ++step) {
    const double now = learning_rate(s, step), next = learning_rate(s, step + 1);
    if (step < 6)
      EXPECT_LT(now, next);
    else
      EXPECT_GE(now, next);
    EXPECT_GT(now, 0);
    EXPECT_LE(now, 1);
  }
}

TEST(LrSchedule, WithoutDecayItStaysAtThePeak) {
  const LrSchedule s{.peak = 0.5, .min = 0, .warmup_steps = 0};
  EXPECT_EQ(learning_rate(s, 0), 0.5);
  EXPECT_EQ(learning_rate(s, 1000000), 0.5);
}

TEST(LrSchedule, CosineOverATotal) {
  const LrSchedule s = cosine_over(100, 10, 1.0, 0.1);
  EXPECT_EQ(learning_rate(s, 9), 1.0);
  EXPECT_EQ(learning_rate(s, 10), 1.0);
  EXPECT_NEAR(learning_rate(s, 99), 0.1, 1e-3);
  EXPECT_EQ(learning_rate(s, 100), 0.1);
  const LrSchedule all_warmup = cosine_over(5, 10, 1.0, 0.1);
  EXPECT_EQ(learning_rate(all_warmup, 4), 1.0);
}

TEST(LrSchedule, BadValuesAreNamed) {
  check_schedule(report_schedule());
  EXPECT_THROW(check_schedule({.peak = -1, .min = -2}), ConfigError);
  EXPECT_THROW(check_schedule({.peak = 1, .min = 2}), ConfigError);
  EXPECT_THROW(check_schedule({.peak = std::nan(""), .min = 0}), ConfigError);
  EXPECT_THROW(check_schedule({.warmup_steps = -1}), ConfigError);
  EXPECT_THROW(check_schedule({.decay_steps = -1}), ConfigError);
}

}  // namespace
}  // namespace minke

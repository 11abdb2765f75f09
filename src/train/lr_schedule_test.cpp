#include "train/lr_schedule.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace minke {
namespace {

constexpr Index kBillion = 1'000'000'000;

LrSchedule report_schedule() {
  return {.warmup_steps = 2000,
          .segments = {{.until = 10000 * kBillion, .lr = 2.2e-4},
                       {.until = 14300 * kBillion, .lr = 2.2e-5, .shape = "cosine"},
                       {.until = 14633 * kBillion, .lr = 2.2e-5},
                       {.until = 14800 * kBillion, .lr = 7.3e-6}}};
}

TEST(LrSchedule, TheReportsNumbers) {
  const LrSchedule s = report_schedule();
  const auto after = [&](Index billions) { return learning_rate(s, 100000, billions * kBillion); };
  EXPECT_DOUBLE_EQ(learning_rate(s, 0, 0), 2.2e-4 / 2000);
  EXPECT_DOUBLE_EQ(learning_rate(s, 999, 13 * kBillion), 1.1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1999, 26 * kBillion), 2.2e-4);
  EXPECT_EQ(after(5000), 2.2e-4);
  EXPECT_DOUBLE_EQ(after(10000), 2.2e-4);
  EXPECT_DOUBLE_EQ(after(12150), (2.2e-4 + 2.2e-5) / 2);
  EXPECT_GT(after(14299), 2.2e-5);
  EXPECT_EQ(after(14300), 2.2e-5);
  EXPECT_EQ(learning_rate(s, 100000, 14633 * kBillion - 1), 2.2e-5);
  EXPECT_EQ(after(14633), 7.3e-6);
  EXPECT_EQ(after(14800), 7.3e-6);
  EXPECT_EQ(learning_rate(s, 100000, std::numeric_limits<Index>::max()), 7.3e-6);
}

TEST(LrSchedule, NeverRisesAfterTheWarmUp) {
  const LrSchedule s{
      .warmup_steps = 7,
      .segments = {{.until = 10, .lr = 1}, {.until = 30, .lr = .1, .shape = "cosine"}}};
  for (int step = 0; step < 40; ++step) {
    const double now = learning_rate(s, step, step), next = learning_rate(s, step + 1, step + 1);
    if (step < 6)
      EXPECT_LT(now, next);
    else
      EXPECT_GE(now, next);
    EXPECT_GT(now, 0);
    EXPECT_LE(now, 1);
  }
}

TEST(LrSchedule, WaysFromOneRateToAnother) {
  const LrSchedule s{.segments = {{.until = 100, .lr = 1, .shape = "linear", .from = 0},
                                  {.until = 200, .lr = 3, .shape = "linear"},
                                  {.until = 300, .lr = 0, .shape = "cosine", .from = 2}}};
  EXPECT_EQ(learning_rate(s, 0, 0), 0);
  EXPECT_EQ(learning_rate(s, 0, 25), 0.25);
  EXPECT_EQ(learning_rate(s, 0, 100), 1);
  EXPECT_EQ(learning_rate(s, 0, 150), 2);
  EXPECT_EQ(learning_rate(s, 0, 200), 2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 0, 250), 1);
  EXPECT_EQ(learning_rate(s, 0, 300), 0);
}

std::string error_of(const std::vector<LrSegment>& segments) {
  try {
    check_segments(segments, "optimizer.lr_segments");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(LrSchedule, NamesTheSegmentThatCannotBe) {
  EXPECT_EQ(error_of(report_schedule().segments), "");
  EXPECT_EQ(error_of({}), "");
  EXPECT_EQ(error_of({{.until = 5, .lr = 1}, {.until = 5, .lr = 2}}),
            "optimizer.lr_segments[1]: until is 5, but must be above 5, where segment 0 ends");
  EXPECT_NE(error_of({{.until = 5, .lr = 1, .shape = "cosine"}}).find("[0]: from is missing"),
            std::string::npos);
  EXPECT_NE(error_of({{.until = 5, .lr = 1, .from = 2}}).find("[0]: from is 2, but a constant"),
            std::string::npos);
}

}  // namespace
}  // namespace minke

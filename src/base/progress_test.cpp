#include "base/progress.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace minke {
namespace {

TEST(Progress, LineHasCountShareRateTimeLeftAndSuffix) {
  const ProgressOptions options{.label = "train", .unit = "steps", .total = 400};
  EXPECT_EQ(Progress::line(options, 100, 50.0, "loss 3.4"),
            "train  100/400 steps  25%  2 steps/s  2:30 left  loss 3.4");
  EXPECT_EQ(Progress::line(options, 400, 200.0, ""),
            "train  400/400 steps  100%  2 steps/s  in 3:20");
}

TEST(Progress, NothingIsSaidAboutTheRateBeforeTheFirstItem) {
  const ProgressOptions options{.label = "train", .unit = "steps", .total = 4};
  EXPECT_EQ(Progress::line(options, 0, 1.0, ""), "train  0/4 steps  0%");
}

TEST(Progress, ItemsOfAnEarlierRunDoNotRaiseTheRate) {
  const ProgressOptions options{.label = "", .unit = "steps", .total = 400, .start = 300};
  EXPECT_EQ(Progress::line(options, 310, 10.0, ""), "310/400 steps  77%  1 steps/s  1:30 left");
}

TEST(Progress, UnknownTotalAndBytes) {
  const ProgressOptions options{.label = "read", .unit = "bytes"};
  EXPECT_EQ(Progress::line(options, 2500000, 1.0, ""), "read  2.5 MB  2.5 MB/s  in 0:01");
}

TEST(Progress, Durations) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(3725), "1:02:05");
  EXPECT_EQ(format_duration(-1), "0:00");
}

TEST(Progress, PlainLinesGoThroughTheLogger) {
  testing::internal::CaptureStderr();
  set_log_level(LogLevel::Info);
  {
    Progress progress({.label = "work", .unit = "items", .total = 2, .plain_every_s = 0});
    progress.update(1);
    progress.update(2, "done");
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("work  1/2 items"), std::string::npos) << text;
  EXPECT_NE(text.find("work  2/2 items"), std::string::npos) << text;
  EXPECT_EQ(text.back(), '\n');
}

TEST(Log, LevelsAndPrefixes) {
  testing::internal::CaptureStderr();
  log_info("one");
  log_warning("two");
  set_log_level(LogLevel::Warning);
  log_info("three");
  set_log_level(LogLevel::Silent);
  log_warning("four");
  set_log_level(LogLevel::Info);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "minke: one\nminke: warning: two\n");
}

}  // namespace
}  // namespace minke

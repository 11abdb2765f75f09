#include "base/log.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(Log, ALineStaysOneReadableLine) {
  EXPECT_EQ(readable_line("plain, 你好"), "plain, 你好");
  EXPECT_EQ(readable_line("a\nb\r\x1b[2J\x7f"), "a\\x0ab\\x0d\\x1b[2J\\x7f");
  EXPECT_EQ(readable_line(std::string(2000, 'x')), std::string(2000, 'x'));
  EXPECT_EQ(readable_line(std::string(5000, 'x')), std::string(2000, 'x') + "...");
  // Cut between two characters: 3 bytes each, 2000 is in the middle of one.
  std::string wide;
  while (wide.size() < 3000) wide += "你";
  EXPECT_EQ(readable_line(wide), wide.substr(0, 1998) + "...");
}

TEST(Log, WarningsAreReadableLines) {
  testing::internal::CaptureStderr();
  log_warning("tensor a\nb");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "minke: warning: tensor a\\x0ab\n");
}

}  // namespace
}  // namespace minke

#include "page/chrome_trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace minke::page {
namespace {

TEST(ChromeTrace, IsOneJsonDocument) {
  std::string text;
  const auto out = [&](std::string_view piece) { text += piece; };
  ChromeTrace trace(out);
  trace.name_process(0, "replica 0");
  trace.name_thread(0, 3, "rank \"3\"");
  trace.span(0, 3, "F\n\xff", "forward", 1.5, 4, "chunk 0");
  trace.finish();
  const auto json = nlohmann::json::parse(text);
  ASSERT_EQ(json["traceEvents"].size(), 3u);
  EXPECT_EQ(json["traceEvents"][1]["args"]["name"], "rank \"3\"");
  EXPECT_EQ(json["traceEvents"][2]["ph"], "X");
  EXPECT_EQ(json["traceEvents"][2]["ts"], 1.5);
  EXPECT_EQ(json["traceEvents"][2]["dur"], 2.5);
}

TEST(ChromeTrace, Empty) {
  std::string text;
  const auto out = [&](std::string_view piece) { text += piece; };
  ChromeTrace trace(out);
  trace.finish();
  EXPECT_TRUE(nlohmann::json::parse(text)["traceEvents"].empty());
}

}  // namespace
}  // namespace minke::page

#include "plan/rank_trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace minke {
namespace {

TEST(RankTrace, HasASpanForEveryEvent) {
  const std::vector<std::vector<TimelineEvent>> ranks{
      {{Activity::F, 0, {0, 3}, 0.001, 0.002}},
      {{Activity::Exchange, 1, {}, 0.002, 0.004, 0.003}, {Activity::B, 1, {1, 2}, 0.001, 0.005}}};
  std::string text;
  write_rank_trace("dualpipe", ranks, [&](std::string_view piece) { text += piece; });
  std::vector<nlohmann::json> spans, names;
  const nlohmann::json trace = nlohmann::json::parse(text);
  for (const nlohmann::json& event : trace.at("traceEvents"))
    (event.at("ph") == "X" ? spans : names).push_back(event);
  EXPECT_EQ(names.size(), 6u);  // two ranks, two strands each
  EXPECT_EQ(names.front().at("args").at("name"), "dualpipe: rank 0");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].at("name"), "F3");
  EXPECT_EQ(spans[0].at("pid"), 0);
  EXPECT_EQ(spans[0].at("tid"), 0);
  EXPECT_NEAR(spans[0].at("ts").get<double>(), 1000, 1e-6);
  EXPECT_NEAR(spans[0].at("dur").get<double>(), 1000, 1e-6);
  EXPECT_EQ(spans[1].at("name"), "exchange");
  EXPECT_EQ(spans[2].at("name"), "B2");
  EXPECT_EQ(spans[2].at("pid"), 1);
  EXPECT_EQ(spans[2].at("tid"), 1);
}

TEST(RankTrace, TheReportSaysWhatWasIdleAndWhatWasHidden) {
  const std::string text = rank_report({{.span = 2,
                                         .computing = 1.5,
                                         .experts = {.under_way = 0.4, .shown = 0.1, .late = 0.05},
                                         .stages = {.under_way = 0.2, .shown = 0.2, .late = 0.1}}});
  EXPECT_EQ(
      text,
      "rank 0: step 2.000 s, idle 25.0 % (0.500 s); experts 0.400 s under way, 0.100 s shown, "
      "75.0 % hidden; stages 0.200 s under way, 0.200 s shown, 0.0 % hidden; late ranks 0.150 "
      "s\n");
}

}  // namespace
}  // namespace minke

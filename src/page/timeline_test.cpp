#include "page/timeline.h"

#include <gtest/gtest.h>

namespace minke::page {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Timeline, SpansLabelsAndLegend) {
  Timeline t;
  t.title = "two <ranks>";
  t.styles = {{"forward", "#ffaa00", "#cc8800"},
              {"backward", "#00aa00", "#008800"},
              {"silent", "#000000", "#ffffff", false}};
  t.rows.push_back({"rank 0", "bubble 0", {{0, 1, 0, "0", "first"}, {1, 3, 1, "0", ""}}});
  t.rows.push_back({"rank 1",
                    "",
                    {{1, 2, 0, "7", "", Span::Part::Top}, {1, 2, 1, "8", "", Span::Part::Bottom}}});
  const std::string svg = timeline_svg(t);
  EXPECT_EQ(count(svg, "<rect class=\"s0\""), 3u);  // two spans and the legend
  EXPECT_EQ(count(svg, "<rect class=\"s1\""), 3u);
  EXPECT_EQ(count(svg, "<rect class=\"s2\""), 0u);
  EXPECT_EQ(count(svg, "<title>first</title>"), 1u);
  EXPECT_EQ(count(svg, "two &lt;ranks&gt;"), 2u);
  EXPECT_EQ(count(svg, ">7</text>"), 1u);
  EXPECT_EQ(count(svg, "xmlns"), 1u);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Timeline, EmptyOnesAreStillPictures) {
  Timeline t;
  EXPECT_NE(timeline_svg(t).find("</svg>"), std::string::npos);
  t.styles = {{"a", "#000000", "#ffffff"}};
  t.rows.push_back({"rank 0", "", {{0, 0, 0, "0", ""}}});
  const std::string svg = timeline_svg(t);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace minke::page

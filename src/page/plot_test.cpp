#include "page/plot.h"

#include <gtest/gtest.h>

#include "page/heat_map.h"

namespace minke::page {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Ticks, AreRoundAndWithin) {
  EXPECT_EQ(round_ticks(0, 10), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(1.9, 4.1), (std::vector<double>{2, 2.5, 3, 3.5, 4}));
  EXPECT_EQ(round_ticks(-1, 1), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_FALSE(round_ticks(3.0000001, 3.0000002).empty());
}

TEST(Numbers, AreShort) {
  EXPECT_EQ(short_count(14.8e12), "14.8T");
  EXPECT_EQ(short_count(999), "999");
  EXPECT_EQ(short_count(2048), "2.048K");
  EXPECT_EQ(short_number(0.00022), "0.00022");
  EXPECT_EQ(short_number(1.5e-7), "1.5e-07");
  EXPECT_EQ(short_number(0), "0");
}

TEST(PlotSvg, CoordinatesCanBeReadBack) {
  Series series;
  for (const Point& p : {Point{0, 1}, Point{50, 3}, Point{100, 2}}) series.add(p);
  Plot plot{.title = "a < b", .lines = {{"run & co", 3, PlotLine::Kind::Smooth, &series}}};
  const std::string svg = plot_svg(plot);
  EXPECT_EQ(count(svg, "<polyline class=\"smooth r3\" data-name=\"run &amp; co\""), 2u);
  EXPECT_EQ(count(svg, "a &lt; b"), 2u);
  // 440 - 58 - 14 wide, 250 - 34 - 34 high; y from 0.9 to 3.1.
  EXPECT_NE(svg.find("data-x0=\"0\" data-x1=\"100\" data-y0=\"0.9\" data-y1=\"3.1\""),
            std::string::npos)
      << svg;
  EXPECT_NE(svg.find("points=\"0.0,173.73 184.0,8.27 368.0,91.00\""), std::string::npos) << svg;
}

TEST(PlotSvg, TheStartCanBeLeftOutOfTheLinearAxis) {
  Series series;
  for (int x = 0; x <= 100; ++x) series.add({1. * x, x < 5 ? 100. : 2 + 0.01 * x});
  Plot plot{.title = "", .lines = {{"a", 0, PlotLine::Kind::Smooth, &series}}, .skip_start = true};
  const std::string svg = plot_svg(plot);
  const std::size_t logarithmic = svg.find("class=\"log\"");
  EXPECT_NE(svg.find("data-y1=\"3.0"), std::string::npos);
  EXPECT_NE(svg.find("data-y1=\"104", logarithmic), std::string::npos) << svg.substr(logarithmic);
}

TEST(PlotSvg, NothingOneEqualAndZeroValues) {
  Series empty, one, level, zero;
  one.add({5, 7});
  for (int x = 1; x < 4; ++x) level.add({1. * x, -2}), zero.add({1. * x, 0});
  for (const Series* series : {&empty, &one, &level, &zero}) {
    const std::string svg =
        plot_svg({.title = "", .lines = {{"a", 0, PlotLine::Kind::Points, series}}});
    EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
    EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
  }
  EXPECT_NE(plot_svg({.title = "nothing"}).find("</svg>"), std::string::npos);
}

TEST(PlotSvg, MarksStandAtTheirPlaceWithTheirText) {
  Series series;
  series.add({0, 1});
  series.add({100, 2});
  Plot plot{.title = "",
            .lines = {{"a", 0, PlotLine::Kind::Raw, &series}},
            .marks = {{25, 1, "spike <1>"}}};
  const std::string svg = plot_svg(plot);
  EXPECT_NE(svg.find("<g class=\"mark r1\"><path d=\"M92.0,0v182\"/>"), std::string::npos) << svg;
  EXPECT_EQ(count(svg, "<title>spike &lt;1&gt;</title>"), 2u);
}

TEST(HeatMap, LevelsAreFactorsAroundOne) {
  EXPECT_EQ(heat_levels().size(), 7u);
  EXPECT_EQ(heat_level(0), 0u);
  EXPECT_EQ(heat_level(1), 3u);
  EXPECT_EQ(heat_level(0.8), 3u);
  EXPECT_EQ(heat_level(3.9), 5u);
  EXPECT_EQ(heat_level(4), 6u);
}

TEST(HeatMap, NeighboursOfOneLevelAreOneStroke) {
  LoadHistory loads;
  for (const int step : {10, 20, 30}) loads.add(step, {4, 4});
  loads.add(40, {8, 0});
  const std::string svg = heat_map_svg(loads, 100);
  EXPECT_NE(svg.find("viewBox=\"0 0 4 2\""), std::string::npos);
  EXPECT_NE(svg.find("data-steps=\"10,20,30,40,40\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("class=\"h3\" data-level=\"0.8 to 1.25\" d=\"M0,0.5h3M0,1.5h3\""),
            std::string::npos)
      << svg;
  EXPECT_NE(svg.find("class=\"h5\" data-level=\"2 to 4\" d=\"M3,0.5h1\""), std::string::npos);
  EXPECT_NE(svg.find("class=\"h0\" data-level=\"below 0.25\" d=\"M3,1.5h1\""), std::string::npos);
}

}  // namespace
}  // namespace minke::page

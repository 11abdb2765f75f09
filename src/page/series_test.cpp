#include "page/series.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace minke::page {
namespace {

std::vector<Point> waves(int n) {
  std::vector<Point> points;
  for (int i = 1; i <= n; ++i) points.push_back({1. * i, std::sin(0.01 * i) + 1e-6 * i});
  return points;
}

TEST(Thin, KeepsEndsAndTheExtremesOfEveryBucket) {
  std::vector<Point> points = waves(10000);
  points[1234].y = 50;
  points[7777].y = -50;
  for (const Scale scale : {Scale::Linear, Scale::Log}) {
    const std::vector<Point> thinned = thin(points, scale, 100);
    EXPECT_LE(thinned.size(), 202u);
    EXPECT_GE(thinned.size(), 60u);
    EXPECT_EQ(thinned.front(), points.front());
    EXPECT_EQ(thinned.back(), points.back());
    for (const std::size_t i : {1234u, 7777u})
      EXPECT_EQ(std::count(thinned.begin(), thinned.end(), points[i]), 1) << i;
    EXPECT_TRUE(std::is_sorted(thinned.begin(), thinned.end(),
                               [](const Point& a, const Point& b) { return a.x < b.x; }));
    EXPECT_EQ(thin(thinned, scale, 100), thinned);
  }
}

TEST(Thin, FewPointsStayAsTheyAre) {
  for (const int n : {0, 1, 2}) EXPECT_EQ(thin(waves(n), Scale::Linear, 1), waves(n));
  EXPECT_EQ(thin(waves(50), Scale::Linear, 1000), waves(50));
  const std::vector<Point> same_x = {{5, 1}, {5, 3}, {5, 2}};
  EXPECT_EQ(thin(same_x, Scale::Log, 10), same_x);
}

TEST(Series, IsBoundedAndKeepsWhatStandsOut) {
  Series series;
  for (const Point& p : waves(1'000'000)) series.add(p.x == 654321 ? Point{p.x, 99} : p);
  EXPECT_EQ(series.count(), 1'000'000);
  EXPECT_LT(series.points().size(), 4096u);
  EXPECT_EQ(std::count(series.points().begin(), series.points().end(), Point{654321, 99}), 1);
  EXPECT_EQ(series.points().front().x, 1);
  EXPECT_EQ(series.last().x, 1'000'000);
  // The beginning is there for a logarithmic axis: some points of the first thousandth.
  const auto early = std::count_if(series.points().begin(), series.points().end(),
                                   [](const Point& p) { return p.x <= 1000; });
  EXPECT_GT(early, 60);
}

TEST(Position, OnBothScales) {
  EXPECT_DOUBLE_EQ(position_on(Scale::Linear, 3, 1, 5), 0.5);
  EXPECT_DOUBLE_EQ(position_on(Scale::Log, 100, 1, 10000), 0.5);
  EXPECT_EQ(position_on(Scale::Log, 0, 0, 10), 0);
  EXPECT_EQ(position_on(Scale::Log, 10, 0, 10), 1);
  EXPECT_EQ(position_on(Scale::Linear, 1, 1, 1), 0);
  EXPECT_EQ(position_on(Scale::Log, 0, 0, 0), 0);
}

TEST(Smoother, FollowsALevelAndForgetsTheStart) {
  Smoother smoother;
  EXPECT_EQ(smoother.add(8), 8);
  double mean = 0;
  for (int i = 0; i < 100; ++i) mean = smoother.add(2);
  EXPECT_NEAR(mean, 2, 1e-3);
  for (int i = 0; i < 100'000; ++i) mean = smoother.add(i % 2 ? 1 : 3);
  EXPECT_NEAR(mean, 2, 1e-3);  // of the last two thousand
}

}  // namespace
}  // namespace minke::page

#include "plan/failures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"

namespace minke {
namespace {

// Useful share of a long run with failures drawn at random.
double drawn_goodput(const FailureModel& m, double interval, int intervals) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> until_failure(1 / m.mtbf_s);
  double wall = 0;
  for (int i = 0; i < intervals; ++i) {
    double needed = interval + m.checkpoint_s;
    for (;;) {
      const double failure = until_failure(random);
      if (failure >= needed) {
        wall += needed;
        break;
      }
      wall += failure;
      needed = m.restart_s + interval + m.checkpoint_s;
    }
  }
  return interval * intervals / wall;
}

TEST(Failures, GoodputIsThatOfDrawnFailures) {
  for (const double mtbf : {3000.0, 10000.0, 1e6}) {
    const FailureModel m = {mtbf, 20, 300};
    const double drawn = drawn_goodput(m, 1000, 200000);
    // 200000 draws whose deviation is at most about twice their mean: 0.5 %, doubled.
    EXPECT_NEAR(goodput(m, 1000), drawn, 0.01) << mtbf;
  }
}

TEST(Failures, BestIntervalIsBest) {
  for (const double cost : {0.1, 10.0, 1000.0, 50000.0}) {
    const FailureModel m = {20000, cost, 600};
    const double best = best_interval_s(m);
    EXPECT_GT(best, 0);
    EXPECT_GE(goodput(m, best), goodput(m, best * 1.05));
    EXPECT_GE(goodput(m, best), goodput(m, best * 0.95));
  }
  EXPECT_NEAR(best_interval_s({1e8, 10, 0}), std::sqrt(2 * 10 * 1e8), 0.01 * 44721);
}

TEST(Failures, LimitsAndRefusals) {
  EXPECT_NEAR(goodput({1e12, 1, 1}, 999), 0.999, 1e-6);
  EXPECT_EQ(goodput({1, 1, 1}, 1e9), 0);
  EXPECT_EQ(job_mtbf_s(50000, 2), 9e7);
  EXPECT_THROW(goodput({0, 1, 1}, 1), ConfigError);
  EXPECT_THROW(goodput({1, -1, 1}, 1), ConfigError);
  EXPECT_THROW(goodput({1, 1, 1}, 0), ConfigError);
}

}  // namespace
}  // namespace minke

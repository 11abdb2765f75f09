#include "bench/result.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace minke::bench {
namespace {

TEST(Measured, GivesTheShareOfTheLimit) {
  int calls = 0;
  Result work;
  work.flop = 1000;
  const Result r = measured(
      work, 5,
      [&] {
        ++calls;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      },
      [] { return 1e6; });
  EXPECT_EQ(calls, 6);  // one to warm up
  EXPECT_GE(r.seconds, 0.002);
  EXPECT_EQ(r.limit, 1e6);
  EXPECT_NEAR(r.share, r.rate() / r.limit, 1e-9);
  EXPECT_LE(r.share, 0.5);
}

TEST(Measured, NearerTakesTheLimitThatAsksForMoreTime) {
  Result work;
  work.flop = 1e9, work.bytes = 1e6;
  const auto bound = [&](double flop_per_s, double bytes_per_s) {
    return measured_nearer(
               work, 1, [] {}, [&] { return flop_per_s; }, [&] { return bytes_per_s; })
        .bound;
  };
  EXPECT_EQ(bound(1e9, 1e9), Bound::Flop);
  EXPECT_EQ(bound(1e12, 1e6), Bound::Bytes);
}

}  // namespace
}  // namespace minke::bench

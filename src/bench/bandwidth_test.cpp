#include "bench/bandwidth.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

TEST(BandwidthBench, TheReadBandwidthIsTheBestOfItsPasses) {
  const int threads = n_threads();
  const auto results = bandwidth_results({.rounds = 1, .mib = 1});
  EXPECT_EQ(n_threads(), threads);
  ASSERT_EQ(results.size(), threads > 1 ? 12u : 6u);
  EXPECT_EQ(results[0].name, "read bandwidth");
  EXPECT_EQ(results[0].threads, threads);
  EXPECT_EQ(results[0].share, 1);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_LE(results[i].rate(), results[0].rate());
  for (const Result& r : results) EXPECT_GT(r.rate(), 0) << r.name;
}

}  // namespace
}  // namespace minke::bench

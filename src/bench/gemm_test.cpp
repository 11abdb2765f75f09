#include "bench/gemm.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

TEST(GemmBench, SmallRunMeasuresEveryCase) {
  const auto results = gemm_results({.rounds = 1, .smaller = 64});
  EXPECT_GT(results.size(), 10u);
  for (const Result& r : results) {
    EXPECT_GT(r.seconds, 0) << r.name;
    EXPECT_GT(r.share, 0) << r.name;
  }
}

}  // namespace
}  // namespace minke::bench

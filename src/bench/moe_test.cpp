#include "bench/moe.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

TEST(MoeBench, SmallRunMeasuresEveryCase) {
  MoeBench bench{.tokens = {1, 3}, .mib = 1, .rounds = 1};
  bench.choice.weights = "bf16";
  const auto results = moe_results(bench);
  ASSERT_EQ(results.size(), 2u);
  for (const Result& r : results) {
    EXPECT_GT(r.seconds, 0) << r.shape;
    EXPECT_GT(r.share, 0) << r.shape;
    EXPECT_EQ(r.form, "bf16");
  }
  // Four experts and the shared one in BF16, the gate and its biases in FP32.
  EXPECT_EQ(results[0].bytes, 5 * 3 * 512 * 256 * 2 + (32 * 512 + 32) * 4);
  EXPECT_EQ(results[0].flop, 2.0 * (5 * 3 * 512 * 256 + 32 * 512));
  EXPECT_EQ(results[0].note, "4.0 of 32 experts");
}

}  // namespace
}  // namespace minke::bench

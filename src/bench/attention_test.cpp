#include "bench/attention.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

TEST(AttentionBench, SmallRunMeasuresEveryCase) {
  const auto results = attention_results({.rounds = 1, .smaller = 64});
  ASSERT_EQ(results.size(), 24u);
  for (const Result& r : results) {
    EXPECT_GT(r.seconds, 0) << r.name;
    EXPECT_GT(r.share, 0) << r.name;
  }
  // `mini`, 8 sequences of 8 tokens: 8 heads, 36 pairs, keys of 96 and values of 64.
  EXPECT_EQ(results[0].flop, 2.0 * 8 * 8 * 36 * (96 + 64));
  EXPECT_EQ(results[1].flop, 2.0 * 8 * 8 * 36 * (3 * 96 + 2 * 64));
  for (const std::size_t i : {0, 1}) {
    EXPECT_EQ(results[i].form, "fp32");
    EXPECT_EQ(results[i + 2].form, "bf16");
    EXPECT_EQ(results[i + 2].flop, results[i].flop);
  }
  // 64 rows of 576 elements in BF16.
  EXPECT_EQ(results[16].bytes, 64.0 * 576 * 2);
  EXPECT_EQ(results[17].bytes, 64.0 * 656);  // 512 codes, 4 scales, 64 in BF16
}

}  // namespace
}  // namespace minke::bench

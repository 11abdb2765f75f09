#include "bench/accumulation.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

// The report measured nearly 2 % on two random matrices that it does not describe. Here the error
// of signed elements lies below that and the error of positive ones, whose sums grow faster, above:
// both within a factor of four.
TEST(Accumulation, ErrorAt4096IsTheReportsAndPromotionRemovesIt) {
  const auto errors = accumulation_errors({.k = {4096}, .side = 24});
  ASSERT_EQ(errors.size(), 2u);
  for (const AccumulationError& e : errors) {
    SCOPED_TRACE(name_of(e.elements));
    EXPECT_GT(e.limited, 0.02 / 4);
    EXPECT_LT(e.limited, 0.02 * 4);
    EXPECT_LT(10 * e.promoted, e.limited);
    EXPECT_LT(e.fp32, 1e-5);
  }
  EXPECT_LT(errors[0].limited, 0.02);
  EXPECT_GT(errors[1].limited, 0.02);
}

TEST(Accumulation, OnlyTheUnpromotedErrorGrowsWithK) {
  const auto errors = accumulation_errors({.k = {512, 4096}, .side = 16});
  for (std::size_t i = 0; i < errors.size(); i += 2) {
    EXPECT_GT(errors[i + 1].limited, 2 * errors[i].limited);
    EXPECT_LT(errors[i + 1].promoted, 2 * errors[i].promoted);
  }
}

}  // namespace
}  // namespace minke::bench

#include "ops/next_lines.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace minke {
namespace {

TEST(NextLines, AreThroughAfterAsManyStepsAsTheyWereSharedOutTo) {
  const char memory[1] = {};  // fetching never faults
  for (const Index bytes : {1, 64, 65, 640})
    for (const Index stretches : {1, 4})
      for (const Index steps : {1, 3, 7, 100}) {
        NextLines lines(memory, bytes, stretches, 4096);
        const Index all = (bytes + 63) / 64 * stretches, share = lines.share(steps);
        EXPECT_EQ(lines.left(), all);
        Index fetched = 0;
        for (Index i = 0; i < steps; ++i) {
          fetched += std::min(share, lines.left());
          lines.fetch(share);
          EXPECT_EQ(lines.left(), all - fetched);
        }
        EXPECT_EQ(lines.left(), 0);
        EXPECT_LT((share - 1) * steps, all);  // no more a step than it takes
      }
}

TEST(NextLines, OfNothingAreNone) {
  NextLines none, empty(&none, 0, 3, 64);
  EXPECT_EQ(none.share(5), 0);
  EXPECT_EQ(empty.share(5), 0);
  EXPECT_EQ(empty.share(0), 0);
  none.fetch(3);
  EXPECT_EQ(none.left(), 0);
}

}  // namespace
}  // namespace minke

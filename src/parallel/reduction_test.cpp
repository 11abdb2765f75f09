#include "parallel/reduction.h"

#include "parallel/reduction_suite.h"
#include "parallel/thread_forms.h"

namespace minke {
namespace {

TEST(FlatRow, PiecesAreCutWhereTensorsEnd) {
  std::vector<float> a{0, 1, 2}, b{}, c{3, 4, 5, 6};
  const FlatRow<float> row({test::view_of(a), test::view_of(b), test::view_of(c)});
  EXPECT_EQ(row.size(), 7);
  for (Index begin = 0; begin <= 7; ++begin)
    for (Index end = begin; end <= 7; ++end) {
      Index next = begin;
      for (const View1<float>& piece : row.pieces({begin, end})) {
        EXPECT_GT(piece.size(), 0);
        for (Index i = 0; i < piece.size(); ++i) EXPECT_EQ(piece(i), next++);
      }
      EXPECT_EQ(next, end);
    }
  EXPECT_EQ(row.pieces({1, 5}).size(), 2u);
  EXPECT_EQ(FlatRow<float>().size(), 0);
  EXPECT_TRUE(FlatRow<float>().pieces({0, 0}).empty());
}

}  // namespace
namespace test {
using Forms = testing::Types<OneRank, RanksAsThreads<2, true>, RanksAsThreads<4, false>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Threads, ReductionSuite, Forms);
}  // namespace test
}  // namespace minke

#include "parallel/zero1.h"

#include "parallel/thread_forms.h"
#include "parallel/zero1_suite.h"

namespace minke {
namespace {

std::vector<Index> elements_of(const std::vector<Piece>& pieces,
                               const std::vector<IndexRange>& owned) {
  std::vector<Index> counts;
  for (const IndexRange& range : owned) {
    counts.push_back(0);
    for (Index i = range.begin; i < range.end; ++i)
      counts.back() += pieces[static_cast<std::size_t>(i)].count;
  }
  return counts;
}

TEST(Zero1, EveryPieceHasOneOwnerAndSharesDifferByOnePiece) {
  const std::vector<std::vector<Index>> cases{
      {}, {1}, {kPiece}, {kPiece + 1, 5, 0, 3 * kPiece}, {10 * kPiece, 1, 1, 1}, {7, 7, 7, 7, 7}};
  for (const std::vector<Index>& sizes : cases)
    for (const int n_ranks : {1, 2, 3, 8}) {
      const std::vector<Piece> pieces = cut_into_pieces(sizes);
      const std::vector<IndexRange> owned = owned_pieces(pieces, n_ranks);
      ASSERT_EQ(owned.size(), static_cast<std::size_t>(n_ranks));
      Index next = 0, total = 0;
      for (const IndexRange& range : owned) {
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.end, range.begin);
        next = range.end;
      }
      EXPECT_EQ(next, static_cast<Index>(pieces.size()));
      for (const Index n : sizes) total += n;
      for (const Index n : elements_of(pieces, owned)) {
        EXPECT_LT(n, total / n_ranks + 1 + kPiece);
        EXPECT_GT(n, total / n_ranks - 1 - kPiece);
      }
    }
}

TEST(Zero1, PiecesAreCountedFromTheBeginningOfEachTensor) {
  const std::vector<Piece> pieces = cut_into_pieces({kPiece + 2, 0, 3});
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[1].tensor, 0u);
  EXPECT_EQ(pieces[1].begin, kPiece);
  EXPECT_EQ(pieces[1].count, 2);
  EXPECT_EQ(pieces[2].tensor, 2u);
  EXPECT_EQ(pieces[2].count, 3);
}

TEST(Zero1, AGroupWithoutTensors) {
  const auto one = one_rank();
  ShardedOptimizer optimizer(*one, {}, {});
  optimizer.reduce_gradients({});
  EXPECT_TRUE(optimizer.squares().empty());
  optimizer.update({});
  optimizer.gather_weights();
  EXPECT_TRUE(optimizer.slices().empty());
}

}  // namespace
namespace test {
using Forms = testing::Types<OneRank, RanksAsThreads<2, true>, RanksAsThreads<4, false>,
                             RanksAsThreads<7, false>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Threads, Zero1Suite, Forms);
}  // namespace test
}  // namespace minke

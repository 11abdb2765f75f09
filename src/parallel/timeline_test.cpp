#include "parallel/timeline.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

using Events = std::vector<TimelineEvent>;

TEST(TimelineShares, AWaitBetweenOperationsIsABubble) {
  const Events early{{Activity::F, 0, {}, 1, 2}, {Activity::B, 1, {}, 4, 6}};
  const Events late{{Activity::Message, 0, {}, 1, 2, 2},
                    {Activity::F, 0, {}, 2, 3},
                    {Activity::B, 1, {}, 3, 5},
                    {Activity::W, 1, {}, 5, 5.5}};
  const auto shares = shares_of({early, late});
  EXPECT_DOUBLE_EQ(shares[0].span, 5);
  EXPECT_DOUBLE_EQ(shares[0].computing, 3);
  EXPECT_DOUBLE_EQ(shares[0].idle(), 2);
  EXPECT_DOUBLE_EQ(shares[1].span, 5);
  EXPECT_DOUBLE_EQ(shares[1].computing, 3.5);
  EXPECT_DOUBLE_EQ(shares[0].experts.hidden_share(), 1);  // there was no exchange
  EXPECT_DOUBLE_EQ(shares[1].stages.shown, 1);
}

// A forward that waits inside for an exchange, with nothing beside it.
TEST(TimelineShares, AnExchangeInsideAnOperationIsNoComputing) {
  const auto shares =
      shares_of({{{Activity::Exchange, 0, {}, 1, 3, 3}, {Activity::F, 0, {}, 0, 4}}});
  EXPECT_DOUBLE_EQ(shares[0].computing, 2);
  EXPECT_DOUBLE_EQ(shares[0].experts.under_way, 2);
  EXPECT_DOUBLE_EQ(shares[0].experts.shown, 2);
  EXPECT_DOUBLE_EQ(shares[0].experts.late, 0);
  EXPECT_DOUBLE_EQ(shares[0].experts.hidden_share(), 0);
}

// The forward's exchange comes at 4, and it gets its turn when the backward begins to wait at 5;
// of the backward's exchange, 5 to 7, the forward covers the part up to its end at 6.
TEST(TimelineShares, TheOtherStrandHidesAnExchange) {
  const auto shares = shares_of({{{Activity::Exchange, 0, {}, 1, 5, 4},
                                  {Activity::F, 0, {}, 0, 6},
                                  {Activity::Exchange, 1, {}, 5, 7, 7},
                                  {Activity::B, 1, {}, 1, 8}}});
  EXPECT_DOUBLE_EQ(shares[0].computing, 7);          // 0-6 and 7-8
  EXPECT_DOUBLE_EQ(shares[0].experts.under_way, 5);  // 1-4 and 5-7
  EXPECT_DOUBLE_EQ(shares[0].experts.shown, 1);      // 6-7
  EXPECT_DOUBLE_EQ(shares[0].experts.hidden_share(), 0.8);
}

// A wait from 1 to 3 within a forward, of which a part of W fills the first half second.
TEST(TimelineShares, APartOfWHidesTheWaitThatItFills) {
  const auto shares = shares_of({{{Activity::Part, 0, {}, 1, 1.5},
                                  {Activity::Exchange, 0, {}, 1, 3, 3},
                                  {Activity::F, 0, {}, 0, 4}}});
  EXPECT_DOUBLE_EQ(shares[0].computing, 2.5);
  EXPECT_DOUBLE_EQ(shares[0].experts.under_way, 2);
  EXPECT_DOUBLE_EQ(shares[0].experts.shown, 1.5);
}

// The peer posts its end at 3 of a wait from 1 to 4; what the other strand computes in the first
// half second hides a part of its lateness.
TEST(TimelineShares, AWaitForALateRankIsNoExchange) {
  const auto shares = shares_of({{{Activity::Exchange, 0, {}, 1, 4, 4, {}, 3},
                                  {Activity::F, 0, {}, 0, 5},
                                  {Activity::B, 1, {}, 1, 1.5}}});
  EXPECT_DOUBLE_EQ(shares[0].experts.under_way, 1);
  EXPECT_DOUBLE_EQ(shares[0].experts.shown, 1);
  EXPECT_DOUBLE_EQ(shares[0].experts.late, 1.5);
  EXPECT_DOUBLE_EQ(shares[0].stages.late, 0);
}

TEST(TimelineShares, NothingMeasuredIsNothing) {
  const auto shares = shares_of({{}, {}});
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].span, 0);
  EXPECT_EQ(shares[0].idle(), 0);
}

}  // namespace
}  // namespace minke

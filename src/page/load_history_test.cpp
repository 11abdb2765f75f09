#include "page/load_history.h"

#include <gtest/gtest.h>

namespace minke::page {
namespace {

TEST(LoadHistory, RatiosAreOverTheMean) {
  LoadHistory history;
  ASSERT_TRUE(history.add(1, {6, 0, 2, 0}));
  const LoadHistory::Column& column = history.columns()[0];
  EXPECT_EQ(column.ratio(0), 3);
  EXPECT_EQ(column.ratio(2), 1);
  EXPECT_EQ(column.worst_ratio(), 3);
  ASSERT_TRUE(history.add(2, {0, 0, 0, 0}));
  EXPECT_EQ(history.columns()[1].worst_ratio(), 0);
}

TEST(LoadHistory, RefusesAnotherNumberOfExperts) {
  LoadHistory history;
  EXPECT_FALSE(history.add(1, {}));
  EXPECT_TRUE(history.add(1, {1, 2}));
  EXPECT_FALSE(history.add(2, {1, 2, 3}));
  EXPECT_EQ(history.columns().size(), 1u);
}

TEST(LoadHistory, ColumnsAreBoundedAndLoseNothing) {
  LoadHistory history;
  double sum = 0;
  for (int step = 1; step <= 10'001; ++step) {
    ASSERT_TRUE(history.add(step, {1. * step, 1}));
    sum += step;
  }
  for (const auto& columns : {history.columns(), history.columns(50)}) {
    EXPECT_LE(columns.size(), 240u);
    double found = 0, ones = 0;
    std::int64_t next = 1;
    for (const LoadHistory::Column& c : columns) {
      EXPECT_EQ(c.first_step, next);
      next = c.last_step + 1;
      found += c.loads[0];
      ones += c.loads[1];
    }
    EXPECT_EQ(next, 10'002);
    EXPECT_EQ(found, sum);
    EXPECT_EQ(ones, 10'001);
  }
  EXPECT_LE(history.columns(50).size(), 50u);
  EXPECT_GE(history.columns(50).size(), 25u);
}

}  // namespace
}  // namespace minke::page

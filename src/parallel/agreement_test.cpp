#include "parallel/agreement.h"

#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "parallel/thread_ranks.h"

namespace minke {
namespace {

TEST(AgreementThreads, OneYesIsTheYesOfAll) {
  for (const int n : {1, 2, 5})
    for (int who = -1; who < n; ++who)
      run_ranks(n, [&](Communicator& ranks) {
        EXPECT_EQ(any_of_ranks(ranks, ranks.rank() == who), who >= 0);
      });
}

TEST(AgreementThreads, RankZeroGoesFirst) {
  std::mutex mutex;
  std::vector<int> order;
  run_ranks(4, [&](Communicator& ranks) {
    first_then_others(ranks, [&] {
      std::lock_guard lock(mutex);
      order.push_back(ranks.rank());
    });
  });
  ASSERT_EQ(order.size(), 4u);
  EXPECT_EQ(order[0], 0);
}

TEST(AgreementThreads, WhatRankZeroRefusesTheOthersDoNotTry) {
  int tried = 0;
  const auto run = [&] {
    run_ranks(3, [&](Communicator& ranks) {
      first_then_others(ranks, [&] {
        ++tried;
        throw ConfigError("refused");
      });
    });
  };
  EXPECT_THROW(run(), ConfigError);
  EXPECT_EQ(tried, 1);
}

}  // namespace
}  // namespace minke

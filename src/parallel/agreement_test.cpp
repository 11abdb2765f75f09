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

// Also where ranks have nothing to say.
TEST(AgreementThreads, TextsGoToTheFirstAndToAll) {
  run_ranks(3, [](Communicator& ranks) {
    const std::string own(static_cast<std::size_t>(5 * (ranks.rank() % 2)), 'x');
    const std::vector<std::string> texts = gather_texts(ranks, own);
    const std::vector<std::string> all{"", "xxxxx", ""}, none;
    EXPECT_EQ(texts, ranks.rank() == 0 ? all : none);
    EXPECT_EQ(broadcast_text(ranks, own, 1), "xxxxx");
    EXPECT_EQ(broadcast_text(ranks, own, 2), "");
  });
}

}  // namespace
}  // namespace minke

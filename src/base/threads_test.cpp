#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

namespace minke {
namespace {

TEST(Threads, EveryItemRunsOnceOnAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 8}) {
    set_threads(threads);
    EXPECT_EQ(n_threads(), threads);
    for (Index n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
      parallel_for(n, [&](Index i) { count[static_cast<std::size_t>(i)]++; });
      for (auto& c : count) EXPECT_EQ(c.load(), 1);
    }
  }
  set_threads(available_cores());
}

TEST(Threads, ManyShortJobsInARow) {
  set_threads(4);
  std::atomic<Index> sum{0};
  for (int job = 0; job < 2000; ++job) parallel_for(5, [&](Index i) { sum += i; });
  EXPECT_EQ(sum.load(), 2000 * 10);
  set_threads(available_cores());
}

TEST(Threads, NestedCallsRunSerially) {
  std::atomic<int> sum{0};
  parallel_for(4, [&](Index) { parallel_for(5, [&](Index) { sum++; }); });
  EXPECT_EQ(sum.load(), 20);
}

TEST(Threads, TheFirstExceptionReachesTheCaller) {
  EXPECT_THROW(parallel_for(100,
                            [](Index i) {
                              if (i == 13) throw std::runtime_error("13");
                            }),
               std::runtime_error);
  std::atomic<int> after{0};
  parallel_for(10, [&](Index) { after++; });
  EXPECT_EQ(after.load(), 10);
}

TEST(Threads, SeveralCallersAtOnceGetTheirOwnItems) {
  set_threads(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([caller] {
      for (int job = 0; job < 200; ++job) {
        std::vector<int> items(13, -1);
        parallel_for(13, [&](Index i) { items[static_cast<std::size_t>(i)] = caller; });
        EXPECT_EQ(items, std::vector<int>(13, caller));
      }
    });
  for (std::thread& caller : callers) caller.join();
  set_threads(available_cores());
}

// The first caller's items end only when the second caller's have run.
TEST(Threads, ACallerDoesNotWaitForTheItemsOfAnother) {
  set_threads(2);
  std::promise<void> begun, ended;
  std::atomic<bool> once{false};
  std::thread first([&] {
    parallel_for(2, [&, done = ended.get_future().share()](Index) {
      if (!once.exchange(true)) begun.set_value();
      done.wait();
    });
  });
  begun.get_future().wait();
  std::atomic<int> count{0};
  EXPECT_THROW(parallel_for(3,
                            [&](Index i) {
                              if (i == 1) throw std::runtime_error("1");
                              count++;
                            }),
               std::runtime_error);
  parallel_for(5, [&](Index) { count++; });
  ended.set_value();
  first.join();
  EXPECT_EQ(count.load(), 6);
  parallel_for(4, [&](Index) { count++; });
  EXPECT_EQ(count.load(), 10);
  set_threads(available_cores());
}

TEST(Threads, RangesCoverWithoutOverlap) {
  for (Index n : {0, 1, 15, 16, 17, 100}) {
    std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
    parallel_ranges(n, 16, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) count[static_cast<std::size_t>(i)]++;
    });
    for (auto& c : count) EXPECT_EQ(c.load(), 1);
  }
}

}  // namespace
}  // namespace minke

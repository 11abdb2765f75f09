#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
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
  EXPECT_THROW(parallel_for(100, [](Index i) { if (i == 13) throw std::runtime_error("13"); }),
               std::runtime_error);
  std::atomic<int> after{0};
  parallel_for(10, [&](Index) { after++; });
  EXPECT_EQ(after.load(), 10);
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

#include "base/threads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/test_topology.h"

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

TEST(EvenParts, CoverInOrderAndSayWhoseANumberIs) {
  for (const Index n : {0, 1, 2, 5, 7, 128})
    for (const Index parts : {1, 2, 3, 8}) {
      const EvenParts even{n, parts};
      EXPECT_EQ(even.begin(0), 0);
      EXPECT_EQ(even.end(parts - 1), n);
      for (Index part = 0; part < parts; ++part) {
        EXPECT_LE(even.end(part) - even.begin(part), (n + parts - 1) / parts);
        EXPECT_GE(even.end(part) - even.begin(part), n / parts);
        for (Index i = even.begin(part); i < even.end(part); ++i) EXPECT_EQ(even.part_of(i), part);
      }
    }
}

struct HomedThreads : testing::Test, TwoNodes {};

TEST_F(HomedThreads, AreDealtOutByCpus) {
  const auto dealt = [](const Topology& t, int threads) {
    set_threads(threads);
    std::vector<int> of_home;
    for (Index home = 0; home < n_homes(); ++home) of_home.push_back(n_threads_of_home(home));
    EXPECT_EQ(n_threads(), threads);
    EXPECT_EQ(topology().n_nodes(), t.n_nodes());
    return of_home;
  };
  const auto machine = [] { return Topology::synthetic("package:2 [numa] pu:4", {0, 1, 2, 3, 7}); };
  const Topology t = machine();
  set_topology(machine());
  EXPECT_EQ(dealt(t, 1), std::vector<int>{1});
  EXPECT_EQ(dealt(t, 2), (std::vector<int>{1, 1}));
  EXPECT_EQ(dealt(t, 4), (std::vector<int>{3, 1}));
  EXPECT_EQ(dealt(t, 5), (std::vector<int>{4, 1}));
  EXPECT_EQ(dealt(t, 10), (std::vector<int>{8, 2}));
}

TEST_F(HomedThreads, DoEveryItemOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    set_threads(threads);
    for (const Index n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
      const auto body = [&](Index i) { count[static_cast<std::size_t>(i)]++; };
      parallel_for(n, body);
      parallel_for_at_home(n, body);
      int times = 2;
      if (n_homes() == 2)
        for (const Index cut : {Index{0}, n / 3, n}) {
          const Index ends[] = {cut, n};
          parallel_for_at_home(ends, body);
          ++times;
        }
      for (auto& c : count) EXPECT_EQ(c.load(), times);
    }
  }
}

TEST_F(HomedThreads, BeginWithTheItemsOfTheirHome) {
  const std::thread::id caller = std::this_thread::get_id();
  for (int round = 0; round < 20; ++round) {
    constexpr Index kItems = 40, kOfHome0 = 15;
    std::mutex mutex;
    std::vector<Index> by_caller, by_other;
    std::atomic<int> came{0};
    const Index ends[] = {kOfHome0, kItems};
    parallel_for_at_home(ends, [&](Index i) {
      {
        std::lock_guard lock(mutex);
        auto& mine = std::this_thread::get_id() == caller ? by_caller : by_other;
        mine.push_back(i);
        if (mine.size() == 1) ++came;
      }
      while (came < 2) std::this_thread::yield();
    });
    EXPECT_EQ(by_caller.front(), 0);
    EXPECT_EQ(by_other.front(), kOfHome0);
    const auto is_of_home_0 = [](Index i) { return i < kOfHome0; };
    EXPECT_TRUE(std::is_partitioned(by_caller.begin(), by_caller.end(), is_of_home_0));
    EXPECT_TRUE(std::is_partitioned(by_other.begin(), by_other.end(), std::not_fn(is_of_home_0)));
  }
}

// Home 1's thread is kept in its first item until all others are done.
TEST_F(HomedThreads, HelpWhereAnotherHomeIsBehind) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<Index> by_caller{0};
  std::promise<void> other_came;
  const auto came = other_came.get_future().share();
  parallel_for_at_home(20, [&](Index) {
    if (std::this_thread::get_id() == caller) {
      came.wait();
      ++by_caller;
    } else {
      other_came.set_value();
      while (by_caller < 19) std::this_thread::yield();
    }
  });
  EXPECT_EQ(by_caller, 19);
}

TEST_F(HomedThreads, PassOnExceptionsAndRunNestedCallsSerially) {
  std::atomic<int> count{0};
  EXPECT_THROW(parallel_for_at_home(1000,
                                    [&](Index i) {
                                      if (i == 3) throw std::runtime_error("3");
                                      count++;
                                    }),
               std::runtime_error);
  count = 0;
  parallel_for_at_home(4, [&](Index) { parallel_for_at_home(5, [&](Index) { count++; }); });
  EXPECT_EQ(count.load(), 20);
}

TEST_F(HomedThreads, ServeSeveralCallers) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([caller] {
      for (int job = 0; job < 200; ++job) {
        std::vector<int> items(13, -1);
        parallel_for_at_home(13, [&](Index i) { items[static_cast<std::size_t>(i)] = caller; });
        EXPECT_EQ(items, std::vector<int>(13, caller));
      }
    });
  for (std::thread& caller : callers) caller.join();
}

TEST_F(HomedThreads, HaveOneHomeWhereThereAreFewerThanNodes) {
  EXPECT_EQ(n_homes(), 2);
  set_threads(1);
  EXPECT_EQ(n_homes(), 1);
  set_threads(3);
  EXPECT_EQ(n_homes(), 2);
}

}  // namespace
}  // namespace minke

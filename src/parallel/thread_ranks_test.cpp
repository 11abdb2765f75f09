#include "parallel/thread_ranks.h"

#include <atomic>
#include <stdexcept>

#include "base/test_directory.h"
#include "base/threads.h"
#include "parallel/communicator_suite.h"
#include "parallel/thread_forms.h"

namespace minke {
namespace {

using test::bytes_of;

void send_now(Communicator& c, const std::vector<int>& values, int to, int tag) {
  Request request = c.send(bytes_of(values), to, tag);
  wait(request);
}

TEST(RanksAsThreads, HostsHoldAsManyRanksAsAsked) {
  run_ranks(5,
            [](Communicator& c) {
              EXPECT_EQ(c.size(), 5);
              EXPECT_EQ(c.host(0), "host0");
              EXPECT_EQ(c.host(1), "host0");
              EXPECT_EQ(c.host(2), "host1");
              EXPECT_EQ(c.host(4), "host2");
            },
            {.ranks_per_host = 2});
}

// Each rank sends before it receives: with buffers that works, with rendezvous all wait in a
// circle.
TEST(RanksAsThreads, SendsBeforeReceivesWaitInACircleWithRendezvous) {
  const auto ring = [](Communicator& c) {
    std::vector<int> sent{c.rank()}, got(1);
    Request send = c.send(bytes_of(sent), (c.rank() + 1) % c.size(), 0);
    wait(send);
    Request receive = c.receive(bytes_of(got), (c.rank() + c.size() - 1) % c.size(), 0);
    wait(receive);
  };
  run_ranks(3, ring);
  const std::string error = error_of(
      [&] { run_ranks(3, ring, {.rendezvous = true, .timeout = std::chrono::milliseconds(50)}); });
  EXPECT_HOLDS(error, "the send of 4 bytes to rank ");
  EXPECT_HOLDS(error, "was not complete within 50 ms");
}

TEST(RanksAsThreads, TheFirstExceptionEndsTheOthersAndIsThrown) {
  std::atomic<int> ended{0};
  const std::string error = error_of([&] {
    run_ranks(4, [&](Communicator& c) {
      c.set_progress(7, "experts");
      if (c.rank() == 2) throw ConfigError("no memory on rank 2");
      std::vector<int> got(1);
      Request request = c.receive(bytes_of(got), (c.rank() + 1) % 4, 0);
      const std::string failure = error_of([&] { wait(request); });
      EXPECT_HOLDS(failure,
                   "the job is being ended: rank 2 of 4 on host0, step 7, experts: no memory");
      ++ended;
      EXPECT_THROW(c.barrier(), RankFailure);
    });
  });
  EXPECT_EQ(error, "no memory on rank 2");
  EXPECT_EQ(ended.load(), 3);
}

TEST(RanksAsThreads, AnyExceptionIsThrownAgain) {
  EXPECT_THROW(run_ranks(2, [](Communicator&) { throw std::out_of_range("x"); }),
               std::out_of_range);
  EXPECT_THROW(run_ranks(2, [](Communicator&) { throw 5; }), int);
}

TEST(RanksAsThreads, AbortEndsWaitsOfAllCommunicators) {
  const std::string error = error_of([] {
    run_ranks(4, [](Communicator& c) {
      const auto pair = c.split(c.rank() / 2, 0);
      if (c.rank() == 0) {
        c.abort("a loss of NaN");
        return;
      }
      pair->barrier();  // of ranks 2 and 3: complete or ended
      c.barrier();
    });
  });
  EXPECT_HOLDS(error, "a loss of NaN");
}

TEST(RanksAsThreads, ARankThatHasEndedIsNotWaitedFor) {
  const std::string error = error_of([] {
    run_ranks(3, [](Communicator& c) {
      if (c.rank() == 1) return;
      if (c.rank() == 2) c.barrier();
      std::vector<int> got(2);
      Request request = c.receive(bytes_of(got), 1, 4);
      wait(request);
    });
  });
  EXPECT_HOLDS(error, "cannot be complete, for that rank has ended");
}

// What a rank has sent before it ended still arrives.
TEST(RanksAsThreads, TheLastMessageOfARankArrives) {
  for (int i = 0; i < 20; ++i)
    run_ranks(2, [](Communicator& c) {
      std::vector<int> number{c.rank()};
      if (c.rank() == 0) return send_now(c, number, 1, 0);
      Request request = c.receive(bytes_of(number), 0, 0);
      wait(request);
      EXPECT_EQ(number[0], 0);
    });
}

TEST(RanksAsThreads, AMessageLeftOverIsAnError) {
  const std::string error = error_of([] {
    run_ranks(2, [](Communicator& c) {
      std::vector<int> number(3);
      if (c.rank() == 0) send_now(c, number, 1, 6);
    });
  });
  EXPECT_EQ(error, "rank 1 never received the message of 12 bytes that rank 0 sent with tag 6");
}

// The buffer of a receive that an exception gave up is not written any more.
TEST(RanksAsThreads, AnExceptionGivesUpWhatIsUnderWay) {
  const std::string error = error_of([] {
    run_ranks(2, [](Communicator& c) {
      std::vector<int> number(1000);
      if (c.rank() == 0) {
        Request request = c.receive(bytes_of(number), 1, 0);
        throw ConfigError("rank 0 stops");
      }
      while (c.split(0, 0)) {
      }
    });
  });
  EXPECT_EQ(error, "rank 0 stops");
}

// Ranks share the pool, and messages may be waited for while another rank computes.
TEST(RanksAsThreads, EveryRankMayUseThePool) {
  set_threads(3);
  run_ranks(4, [](Communicator& c) {
    for (int round = 0; round < 50; ++round) {
      std::vector<int> items(17);
      parallel_for(17, [&](Index i) { items[static_cast<std::size_t>(i)] = c.rank() + 1; });
      EXPECT_EQ(items, std::vector<int>(17, c.rank() + 1));
      if (round % 10 == 0) c.barrier();
    }
  });
  set_threads(available_cores());
}

}  // namespace
namespace test {
using Forms = testing::Types<OneRank, RanksAsThreads<1, true>, RanksAsThreads<2, false>,
                             RanksAsThreads<4, false, 2>, RanksAsThreads<5, true, 2>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Threads, CommunicatorSuite, Forms);
}  // namespace test
}  // namespace minke

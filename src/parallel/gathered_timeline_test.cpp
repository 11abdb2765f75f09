#include "parallel/gathered_timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "parallel/strands.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

using std::chrono::milliseconds;

// Threads have one clock, so that all ranks should answer with the same moment.
TEST(GatheredTimelineThreads, TheOriginIsTheSameMomentOnEveryRank) {
  std::mutex mutex;
  std::vector<Timeline::Clock::time_point> origins;
  run_ranks(3, [&](Communicator& ranks) {
    const auto origin = common_origin(ranks);
    std::lock_guard lock(mutex);
    origins.push_back(origin);
  });
  const auto [first, last] = std::minmax_element(origins.begin(), origins.end());
  EXPECT_LT(*last - *first, milliseconds(20));
}

// Rank 1 of the job sends 30 ms after rank 0 has begun to wait, over a communicator in which the
// ranks have other numbers; of two messages with one tag the second is found to be the second.
TEST(GatheredTimelineThreads, AWaitKnowsWhenThePeerPostedItsEnd) {
  const Timeline::Clock::time_point origin = Timeline::Clock::now();
  std::vector<std::vector<TimelineEvent>> events;
  run_ranks(2, [&](Communicator& world) {
    Timeline timeline(origin);
    const OverlappingCommunicator::Rank rank{.timeline = &timeline};
    OverlappingCommunicator pair(world.split(0, -world.rank()), rank);
    std::byte message{};
    world.barrier();
    if (world.rank() == 1) {
      for (int i = 0; i < 2; ++i) {
        std::this_thread::sleep_for(milliseconds(30));
        Request sent = pair.send({&message, 1}, 1, 7);
        wait(sent);
      }
    } else {
      for (int i = 0; i < 2; ++i) {
        Request came = pair.receive({&message, 1}, 0, 7);
        wait(came);
      }
    }
    auto gathered = gather_events(world, timeline.end());
    if (world.rank() == 0) events = std::move(gathered);
  });
  ASSERT_EQ(events.size(), 2u);
  ASSERT_EQ(events[0].size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const TimelineEvent& e = events[0][static_cast<std::size_t>(i)];
    EXPECT_TRUE(e.message.receives);
    EXPECT_EQ(e.message.peer, 1);
    EXPECT_EQ(e.message.number, i);
    EXPECT_GE(e.peer_s, 0.03 * (i + 1));
    EXPECT_LE(e.peer_s, e.came_s);
  }
}

}  // namespace
}  // namespace minke

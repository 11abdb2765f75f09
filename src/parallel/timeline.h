// What a rank did when: operations of the schedule, waits for messages, waits for exchanges of
// experts. Measured by the executor (parallel/pipeline.h), drawn as a Chrome trace by higher
// layers.
#pragma once
#include <chrono>
#include <mutex>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/schedule.h"

namespace minke {

enum class Activity : std::uint8_t {
  F,
  B,         // full backward
  BI,        // gradients of inputs alone
  W,         // gradients of weights alone
  Message,   // waits for activations or gradients of another stage
  Exchange,  // waits for rows of experts
};
std::string_view name_of(Activity activity);

struct TimelineEvent {
  Activity activity;
  int strand;              // 0; 1 for the backward of an overlapped pair, beside its forward
  MicroBatch micro_batch;  // of operations and messages
  double begin_s, end_s;   // since the timeline's origin
  // Of waits: when what was waited for had come. Until end_s the strand waited for its turn.
  double came_s = 0;
};

// Of one rank. Strands add to it at the same time.
class Timeline {
 public:
  using Clock = std::chrono::steady_clock;
  // Keeps nothing until it is begun, while no strand runs.
  Timeline() = default;
  // Ranks of one process take the same origin; others the end of a common barrier.
  explicit Timeline(Clock::time_point origin) { begin(origin); }
  void begin(Clock::time_point origin);
  std::vector<TimelineEvent> end();  // what events() would give

  double now_s() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }
  void add(const TimelineEvent& event);
  std::vector<TimelineEvent> events() const;  // in the order in which they ended

 private:
  Clock::time_point origin_;
  bool begun_ = false;
  mutable std::mutex mutex_;
  std::vector<TimelineEvent> events_;
};

// Collective. The events of all ranks, on rank 0; nothing on the others.
std::vector<std::vector<TimelineEvent>> gather_events(Communicator& ranks,
                                                      const std::vector<TimelineEvent>& own);

struct TimelineShares {  // seconds
  double span = 0;       // of the step: from the first begin to the last end on any rank
  double computing = 0;  // a strand of the rank computed
  // span - computing: the bubble, and exchanges that nothing hides
  double idle() const { return span - computing; }
  double exchange = 0;  // strands waited for rows of experts to come
  double exposed = 0;   // of it, while no strand of the rank computed
  double hidden_share() const { return exchange > 0 ? 1 - exposed / exchange : 1; }
};
// One of each rank.
std::vector<TimelineShares> shares_of(const std::vector<std::vector<TimelineEvent>>& ranks);

}  // namespace minke

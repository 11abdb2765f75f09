// What a rank did when: operations of the schedule, waits for messages, waits for exchanges of
// experts. Measured by the executor (parallel/pipeline.h), drawn as a Chrome trace by higher
// layers. Events of several ranks come together in parallel/gathered_timeline.h.
#pragma once
#include <chrono>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/schedule.h"

namespace minke {

enum class Activity : std::uint8_t {
  F,
  B,         // full backward
  BI,        // gradients of inputs alone
  W,         // gradients of weights alone
  Part,      // of the weight gradients of a B, where a strand waits
  Message,   // waits for activations or gradients of another stage
  Exchange,  // waits for rows of experts
};
std::string_view name_of(Activity activity);

// One end of a message between two ranks. The other end is that with the same tag and number at the
// peer, whose peer is this rank.
struct MessageEnd {
  bool receives = false;
  int peer = -1;  // in the world; -1: none alone, as in collective operations
  int tag = 0;
  int number = 0;  // of the ends posted here in this direction with this peer and tag
};
struct PostedEnd {
  MessageEnd end;
  double at_s;
};

struct TimelineEvent {
  Activity activity;
  int strand;              // 0; 1 for the backward of an overlapped pair, beside its forward
  MicroBatch micro_batch;  // of operations and messages
  double begin_s, end_s;   // since the timeline's origin
  // Of waits: when what was waited for had come. Until end_s the strand waited for its turn.
  double came_s = 0;
  MessageEnd message = {};
  // When the peer had posted its end: before, the wait was for a late rank, then for the network.
  double peer_s = 0;
};
struct TimelineRecord {
  std::vector<TimelineEvent> events;  // in the order in which they ended
  std::vector<PostedEnd> posted;
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
  TimelineRecord end();

  double now_s() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }
  void add(const TimelineEvent& event);
  // The end of a message that is posted now, numbered.
  MessageEnd post(MessageEnd end);
  std::vector<TimelineEvent> events() const;

 private:
  Clock::time_point origin_;
  bool begun_ = false;
  mutable std::mutex mutex_;
  TimelineRecord record_;
  std::map<std::tuple<bool, int, int>, int> n_posted_;  // by direction, peer and tag
};

// What strands of a rank waited for messages of one kind, in seconds.
struct WaitShares {
  double under_way = 0;  // for messages whose two ends were posted
  double shown = 0;      // of it, while no strand of the rank computed
  double late = 0;       // while no strand computed, for ranks that had not posted their end
  double hidden_share() const { return under_way > 0 ? 1 - shown / under_way : 1; }
};
struct TimelineShares {  // seconds
  double span = 0;       // of the step: from the first begin to the last end on any rank
  double computing = 0;  // a strand of the rank computed
  // span - computing: the bubble, and exchanges that nothing hides
  double idle() const { return span - computing; }
  WaitShares experts, stages;
};
// One of each rank.
std::vector<TimelineShares> shares_of(const std::vector<std::vector<TimelineEvent>>& ranks);

}  // namespace minke

#include "parallel/gathered_timeline.h"

#include <span>
#include <tuple>
#include <type_traits>

namespace minke {
namespace {

using Clock = Timeline::Clock;
constexpr int kTag = 0;
constexpr int kLooks = 16;  // at another rank's clock

template <class T>
void send(Communicator& ranks, std::span<const T> values, int to) {
  Request sent = ranks.send(std::as_bytes(values), to, kTag);
  wait(sent);
}

template <class T>
void receive(Communicator& ranks, std::span<T> values, int from) {
  Request came = ranks.receive(std::as_writable_bytes(values), from, kTag);
  wait(came);
}

// On rank 0, the vectors of all ranks.
template <class T>
std::vector<std::vector<T>> gather(Communicator& ranks, const std::vector<T>& own) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t n = own.size();
  std::vector<std::size_t> counts(static_cast<std::size_t>(ranks.size()));
  Request counted =
      ranks.all_gather(std::as_bytes(std::span(&n, 1)), std::as_writable_bytes(std::span(counts)));
  wait(counted);
  if (ranks.rank() > 0) {
    send(ranks, std::span(own), 0);
    return {};
  }
  std::vector<std::vector<T>> all{own};
  for (int rank = 1; rank < ranks.size(); ++rank) {
    all.emplace_back(counts[static_cast<std::size_t>(rank)]);
    receive(ranks, std::span(all.back()), rank);
  }
  return all;
}

void tell_clock(Communicator& ranks, Clock::time_point origin, int to) {
  std::byte asked{};
  for (int look = 0; look < kLooks; ++look) {
    receive(ranks, std::span(&asked, 1), to);
    const Clock::duration since = Clock::now() - origin;
    send(ranks, std::span(&since, 1), to);
  }
}

Clock::time_point ask_clock(Communicator& ranks) {
  Clock::time_point origin{};
  Clock::duration quickest = Clock::duration::max(), since{};
  const std::byte asks{};
  for (int look = 0; look < kLooks; ++look) {
    const Clock::time_point begin = Clock::now();
    send(ranks, std::span(&asks, 1), 0);
    receive(ranks, std::span(&since, 1), 0);
    const Clock::duration took = Clock::now() - begin;
    if (took >= quickest) continue;
    quickest = took;
    origin = begin + took / 2 - since;
  }
  return origin;
}

}  // namespace

Clock::time_point common_origin(Communicator& ranks) {
  if (ranks.rank() > 0) return ask_clock(ranks);
  const Clock::time_point origin = Clock::now();
  for (int rank = 1; rank < ranks.size(); ++rank) tell_clock(ranks, origin, rank);
  return origin;
}

std::vector<std::vector<TimelineEvent>> gather_events(Communicator& ranks,
                                                      const TimelineRecord& own) {
  std::vector<std::vector<TimelineEvent>> events = gather(ranks, own.events);
  const std::vector<std::vector<PostedEnd>> posted = gather(ranks, own.posted);
  using Key = std::tuple<bool, int, int, int, int>;  // direction, rank, peer, tag, number
  std::map<Key, double> at_s;
  for (std::size_t rank = 0; rank < posted.size(); ++rank)
    for (const auto& [end, s] : posted[rank])
      at_s[{end.receives, static_cast<int>(rank), end.peer, end.tag, end.number}] = s;
  for (std::size_t rank = 0; rank < events.size(); ++rank)
    for (TimelineEvent& e : events[rank]) {
      const MessageEnd& end = e.message;
      const auto other =
          at_s.find({!end.receives, end.peer, static_cast<int>(rank), end.tag, end.number});
      if (other != at_s.end()) e.peer_s = other->second;
    }
  return events;
}

}  // namespace minke

#include "parallel/timeline.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

namespace minke {
namespace {

struct Interval {
  double begin, end;
};
using Intervals = std::vector<Interval>;  // disjoint and rising after `merged`

bool is_wait(Activity activity) {
  return activity == Activity::Message || activity == Activity::Exchange;
}

Intervals merged(Intervals all) {
  std::sort(all.begin(), all.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  Intervals out;
  for (const Interval& next : all) {
    if (!out.empty() && next.begin <= out.back().end)
      out.back().end = std::max(out.back().end, next.end);
    else if (next.end > next.begin)
      out.push_back(next);
  }
  return out;
}

double length(const Intervals& all) {
  double sum = 0;
  for (const Interval& i : all) sum += i.end - i.begin;
  return sum;
}

// a without b.
Intervals without(const Intervals& a, const Intervals& b) {
  Intervals out;
  auto cut = b.begin();
  for (Interval rest : a) {
    while (cut != b.end() && cut->end <= rest.begin) ++cut;
    for (auto c = cut; c != b.end() && c->begin < rest.end; ++c) {
      if (c->begin > rest.begin) out.push_back({rest.begin, c->begin});
      rest.begin = std::max(rest.begin, c->end);
    }
    if (rest.begin < rest.end) out.push_back(rest);
  }
  return out;
}

// A strand computes in its operations, where it does not wait.
Intervals computing(const std::vector<TimelineEvent>& events) {
  Intervals all;
  for (const int strand : {0, 1}) {
    Intervals operations, waits;
    for (const TimelineEvent& e : events)
      if (e.strand == strand)
        (is_wait(e.activity) ? waits : operations).push_back({e.begin_s, e.end_s});
    const Intervals of_strand = without(merged(operations), merged(waits));
    all.insert(all.end(), of_strand.begin(), of_strand.end());
  }
  return merged(std::move(all));
}

}  // namespace

std::string_view name_of(Activity activity) {
  constexpr std::array<std::string_view, 6> names{"F", "B", "BI", "W", "message", "exchange"};
  return names[static_cast<std::size_t>(activity)];
}

void Timeline::begin(Clock::time_point origin) {
  std::lock_guard lock(mutex_);
  origin_ = origin;
  begun_ = true;
}

std::vector<TimelineEvent> Timeline::end() {
  std::lock_guard lock(mutex_);
  begun_ = false;
  return std::exchange(events_, {});
}

void Timeline::add(const TimelineEvent& event) {
  std::lock_guard lock(mutex_);
  if (begun_) events_.push_back(event);
}

std::vector<TimelineEvent> Timeline::events() const {
  std::lock_guard lock(mutex_);
  return events_;
}

std::vector<std::vector<TimelineEvent>> gather_events(Communicator& ranks,
                                                      const std::vector<TimelineEvent>& own) {
  static_assert(std::is_trivially_copyable_v<TimelineEvent>);
  constexpr int kTag = 0;
  const std::size_t n = own.size();
  std::vector<std::size_t> counts(static_cast<std::size_t>(ranks.size()));
  Request counted =
      ranks.all_gather(std::as_bytes(std::span(&n, 1)), std::as_writable_bytes(std::span(counts)));
  wait(counted);
  if (ranks.rank() > 0) {
    Request sent = ranks.send(std::as_bytes(std::span(own)), 0, kTag);
    wait(sent);
    return {};
  }
  std::vector<std::vector<TimelineEvent>> all{own};
  for (int rank = 1; rank < ranks.size(); ++rank) {
    all.emplace_back(counts[static_cast<std::size_t>(rank)]);
    Request came = ranks.receive(std::as_writable_bytes(std::span(all.back())), rank, kTag);
    wait(came);
  }
  return all;
}

std::vector<TimelineShares> shares_of(const std::vector<std::vector<TimelineEvent>>& ranks) {
  double begin = std::numeric_limits<double>::infinity(), end = -begin;
  for (const std::vector<TimelineEvent>& events : ranks)
    for (const TimelineEvent& e : events) {
      begin = std::min(begin, e.begin_s);
      end = std::max(end, e.end_s);
    }
  std::vector<TimelineShares> shares;
  for (const std::vector<TimelineEvent>& events : ranks) {
    const Intervals busy = computing(events);
    Intervals exchanges;
    for (const TimelineEvent& e : events)
      if (e.activity == Activity::Exchange) exchanges.push_back({e.begin_s, e.came_s});
    exchanges = merged(std::move(exchanges));
    shares.push_back({std::max(0.0, end - begin), length(busy), length(exchanges),
                      length(without(exchanges, busy))});
  }
  return shares;
}

}  // namespace minke

#include "parallel/timeline.h"

#include <algorithm>
#include <array>
#include <limits>
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

// A strand computes in its operations, where it does not wait or fills its wait.
Intervals computing(const std::vector<TimelineEvent>& events) {
  Intervals all;
  for (const int strand : {0, 1}) {
    Intervals operations, waits;
    for (const TimelineEvent& e : events)
      if (e.activity == Activity::Part)
        all.push_back({e.begin_s, e.end_s});
      else if (e.strand == strand)
        (is_wait(e.activity) ? waits : operations).push_back({e.begin_s, e.end_s});
    const Intervals of_strand = without(merged(operations), merged(waits));
    all.insert(all.end(), of_strand.begin(), of_strand.end());
  }
  return merged(std::move(all));
}

WaitShares waits_of(const std::vector<TimelineEvent>& events, Activity activity,
                    const Intervals& busy) {
  Intervals all, under_way;
  for (const TimelineEvent& e : events) {
    if (e.activity != activity) continue;
    all.push_back({e.begin_s, e.came_s});
    under_way.push_back({std::clamp(e.peer_s, e.begin_s, e.came_s), e.came_s});
  }
  under_way = merged(std::move(under_way));
  const double shown = length(without(under_way, busy));
  return {length(under_way), shown, length(without(merged(std::move(all)), busy)) - shown};
}

}  // namespace

std::string_view name_of(Activity activity) {
  constexpr std::array<std::string_view, 7> names{"F",      "B",       "BI",      "W",
                                                  "W part", "message", "exchange"};
  return names[static_cast<std::size_t>(activity)];
}

void Timeline::begin(Clock::time_point origin) {
  std::lock_guard lock(mutex_);
  origin_ = origin;
  begun_ = true;
}

TimelineRecord Timeline::end() {
  std::lock_guard lock(mutex_);
  begun_ = false;
  n_posted_.clear();
  return std::exchange(record_, {});
}

void Timeline::add(const TimelineEvent& event) {
  std::lock_guard lock(mutex_);
  if (begun_) record_.events.push_back(event);
}

MessageEnd Timeline::post(MessageEnd end) {
  std::lock_guard lock(mutex_);
  if (!begun_) return end;
  end.number = n_posted_[{end.receives, end.peer, end.tag}]++;
  record_.posted.push_back({end, now_s()});
  return end;
}

std::vector<TimelineEvent> Timeline::events() const {
  std::lock_guard lock(mutex_);
  return record_.events;
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
    shares.push_back({std::max(0.0, end - begin), length(busy),
                      waits_of(events, Activity::Exchange, busy),
                      waits_of(events, Activity::Message, busy)});
  }
  return shares;
}

}  // namespace minke

// Which home of threads (base/threads.h) has which panels of packed weights, and work in the order
// of homes. For ops/ only.
//
// The panels of every matrix are shared out over all homes in contiguous parts. Of a step of
// DeepSeek-V3 each home then reads the same number of bytes whichever experts were chosen; with
// whole experts at one home, the one that has most of the eight chosen would decide the time.
#pragma once
#include <algorithm>

#include "base/threads.h"
#include "ops/linear.h"

namespace minke {

struct PanelRange {
  Index first, last;  // the last one not included
};

// Of a matrix with n outputs, those of `home`.
inline PanelRange panels_at(Index n, Index home) {
  const Index panels = (n + PackedWeights::kPanel - 1) / PackedWeights::kPanel;
  const EvenParts parts = PackedWeights::parts(n, n_homes());
  return {std::min(panels, parts.begin(home) * PackedWeights::kTogether),
          std::min(panels, parts.end(home) * PackedWeights::kTogether)};
}

// Those of home 0, then those of home 1, and so on: end_home() after the last one of each.
template <class Task>
struct HomedTasks {
  BlockVector<Task> tasks;
  BlockVector<Index> ends;

  void end_home() { ends.push_back(static_cast<Index>(tasks.size())); }
  // body(task) for all, on all threads or, not worth them, on this one.
  template <class Body>
  void run(bool worth_threads, Body body) const {
    const auto item = [&](Index i) { body(tasks[static_cast<std::size_t>(i)]); };
    if (worth_threads)
      parallel_for_at_home(ends, item);
    else
      for (Index i = 0; i < ends.back(); ++i) item(i);
  }
};

// body(first, last) over the panels of a matrix with n outputs, up to `grain` at a time, by threads
// of their home.
inline void for_panels_at_home(Index n, Index grain, FunctionRef<void(Index, Index)> body) {
  HomedTasks<PanelRange> ranges;
  for (Index home = 0; home < n_homes(); ++home) {
    const PanelRange own = panels_at(n, home);
    for (Index first = own.first; first < own.last; first += grain)
      ranges.tasks.push_back({first, std::min(first + grain, own.last)});
    ranges.end_home();
  }
  ranges.run(true, [&](const PanelRange& r) { body(r.first, r.last); });
}

}  // namespace minke

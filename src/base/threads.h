// The one thread pool of the process.
//
// Work is handed out by index, so which thread does an item and in what order is free: an item must
// not depend on another one's result, and results must not depend on the number of threads.
//
// Where the process may use several NUMA nodes (base/topology.h) and there is a thread for each,
// every pool thread is kept on the CPUs of one node, its home, and work may be given homes as well.
// With one node, or fewer threads than nodes, there is one home, and threads run where the user let
// them.
#pragma once
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/topology.h"

namespace minke {

// Number of cores this process may use (affinity and cgroup quota counted).
int available_cores();

// Sets the number of threads that take part in parallel_for, the caller included (at least 1).
// Not to be called while work is running.
void set_threads(int n);
int n_threads();

// Nodes that threads have as their homes: all of topology().nodes(), or 1. Not bound to any is the
// caller of parallel_for, which takes part where it runs and is counted at home 0.
Index n_homes();
int n_threads_of_home(Index home);
// The machine as the pool sees it.
const Topology& topology();
// Another machine, for tests. As set_threads(n_threads()).
void set_topology(Topology machine);

// body(i) for every i in [0, n). Returns when all are done. The first exception thrown by an item
// is thrown again here; items not yet begun are then left out. A call from inside a body runs
// serially. Several threads may call at once: one has the pool, the others do their items
// themselves until it is free.
void parallel_for(Index n, FunctionRef<void(Index)> body);

// [0, n) cut in order into `parts` parts of as equal size as can be; some are empty where n <
// parts.
struct EvenParts {
  Index n, parts;
  Index begin(Index part) const { return n * part / parts; }
  Index end(Index part) const { return begin(part + 1); }
  Index part_of(Index i) const { return ((i + 1) * parts - 1) / n; }
};

// The same for items with homes: [0, ends[0]) are of home 0, [ends[0], ends[1]) of home 1, and so
// on; n_homes() ends. A thread does the items of its own home first and then helps the others: what
// an item reads most should be in its home's memory, but nothing waits for a thread of that home.
void parallel_for_at_home(std::span<const Index> ends, FunctionRef<void(Index)> body);
// Items [0, n) whose homes are EvenParts{n, n_homes()}.
void parallel_for_at_home(Index n, FunctionRef<void(Index)> body);

// body(begin, end) over [0, n) cut into pieces of `grain` (the last may be shorter).
void parallel_ranges(Index n, Index grain, FunctionRef<void(Index, Index)> body);

}  // namespace minke

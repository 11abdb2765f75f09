// The one thread pool of the process.
//
// Work is handed out by index, so which thread does an item and in what order is free: an item must
// not depend on another one's result, and results must not depend on the number of threads.
#pragma once
#include <cstdint>

#include "base/function_ref.h"

namespace minke {

using Index = std::int64_t;

// Number of cores this process may use (affinity and cgroup quota counted).
int available_cores();

// Sets the number of threads that take part in parallel_for, the caller included (at least 1).
// Not to be called while work is running.
void set_threads(int n);
int n_threads();

// body(i) for every i in [0, n). Returns when all are done. The first exception thrown by an item
// is thrown again here; items not yet begun are then left out. A call from inside a body runs
// serially. Several threads may call at once: one has the pool, the others do their items
// themselves until it is free.
void parallel_for(Index n, FunctionRef<void(Index)> body);

// body(begin, end) over [0, n) cut into pieces of `grain` (the last may be shorter).
void parallel_ranges(Index n, Index grain, FunctionRef<void(Index, Index)> body);

}  // namespace minke

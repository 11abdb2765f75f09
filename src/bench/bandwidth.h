// How fast memory can be read, copied and updated, by one thread and by all.
#pragma once
#include <vector>

#include "bench/result.h"

namespace minke::bench {

struct BandwidthBench {
  int rounds = 9;
  Index mib = 256;  // read in a pass; must be more than the caches hold
};

// For all threads, then for one: "read bandwidth", the best of 1, 2 and 4 streams a thread, and the
// passes behind it. Shares are of the read bandwidth measured in turn with each, which is 1 by
// definition for the first.
std::vector<Result> bandwidth_results(const BandwidthBench& bench);

}  // namespace minke::bench

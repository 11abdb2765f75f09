// The timelines of several ranks as one: a clock that all of them share, and each wait with the
// moment from which its message was under way.
#pragma once
#include <vector>

#include "parallel/timeline.h"

namespace minke {

// Collective. The same moment on every rank, as its own clock says it: rank 0's when it is asked.
// Clocks of other hosts are compared by the quickest of some messages there and back; half of what
// that one took bounds the error.
Timeline::Clock::time_point common_origin(Communicator& ranks);

// Collective over the ranks of the job. The events of all of them, on rank 0, with their peer_s;
// nothing on the others.
std::vector<std::vector<TimelineEvent>> gather_events(Communicator& ranks,
                                                      const TimelineRecord& own);

}  // namespace minke

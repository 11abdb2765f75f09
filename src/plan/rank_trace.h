// What the ranks of a job did (parallel/timeline.h), as a Chrome trace and in words.
#pragma once
#include <string>
#include <string_view>

#include "base/function_ref.h"
#include "parallel/timeline.h"

namespace minke {

// The events of each pipeline rank, all since the same origin. A process for each rank; in it a
// thread for the list, and one for the backwards of overlapped pairs. Waits lie within what waits.
void write_rank_trace(std::string_view title, const std::vector<std::vector<TimelineEvent>>& ranks,
                      FunctionRef<void(std::string_view)> out);

// A line for each rank: the step's time and the share that the rank was idle of it; how long its
// strands waited for messages of experts and of stages that were under way, and which part of that
// computing did not hide; how long it had nothing to do but wait for ranks that had not yet posted
// theirs.
std::string rank_report(const std::vector<TimelineShares>& ranks);

}  // namespace minke

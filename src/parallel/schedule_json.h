// A schedule as JSON, one operation a line:
//
//   {"schedule": "dualpipe", "num_ranks": N, "num_chunks": C, "num_stages": N, "chunks_per_phase":
//   C/2,
//    "ranks": [{"rank": 0, "ops": [
//      {"op": "F", "step": 2, "phase": 0, "chunk": 0},
//      {"op": "COMM", "step": 2, "msgs": [{"kind": "send_f", "phase": 0, "chunk": 0, "peer": 1}]},
//      {"op": "FB", "step": 4, "f": {"phase": 1, "chunk": 1}, "b": {"phase": 0, "chunk": 0}}, ...
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/function_ref.h"
#include "parallel/schedule.h"

namespace minke {

// Gives the document to `out` in pieces, as a whole list may be larger than memory should hold.
// `more` (an object, may be empty) is put before "ranks".
void write_schedule_json(const Schedule& schedule, const nlohmann::ordered_json& more,
                         FunctionRef<void(std::string_view)> out);

}  // namespace minke

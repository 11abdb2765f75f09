// The line of metrics.jsonl that a step gets.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "model/training_pass.h"
#include "train/run_schedule.h"

namespace minke {

struct StepMeasured {
  std::int64_t step = 0;  // steps made, this one included
  double norm = 0;        // of all gradients
  double seconds = 0;
  bool loads = false;  // record every expert's load
};
nlohmann::ordered_json step_line(const StepSchedule& schedule, const PassResult& result,
                                 const StepMeasured& measured, Index tokens);

}  // namespace minke

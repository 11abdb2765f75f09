// A simulated schedule to look at: the timeline that page/ draws, the trace that Chrome shows, and
// lines of text for a terminal.
#pragma once
#include <string>
#include <string_view>

#include "base/function_ref.h"
#include "page/timeline.h"
#include "parallel/schedule.h"
#include "plan/simulate.h"

namespace minke {

// What is drawn of a simulation: one replica of every pipeline rank.
struct PictureSource {
  const Schedule& schedule;
  const Simulation& simulation;
  std::string title, note;
  std::string time_unit;  // "time", "seconds"
  // Of one message; what a COMM lasts longer is waiting for its peer and drawn as bubble.
  double message_time = 0;
  // Computing time of an operation of replica 0; what it lasts longer is drawn as exchange.
  FunctionRef<double(int rank, const ScheduleOp& op)> compute_time;
};

// A browser shows some hundred thousand spans. ConfigError when `schedule` has more; the trace has
// no such end.
void check_drawable(const Schedule& schedule);

// Forward, backward, input and weight gradients in their colours, the second phase paler; a pair as
// two halves, the forward above; COMM where it takes time.
page::Timeline schedule_timeline(const PictureSource& source);

// A thread for each rank, a span for each operation; `unit_us` microseconds a unit of time.
void write_schedule_trace(const PictureSource& source, double unit_us,
                          FunctionRef<void(std::string_view)> out);

// A line for each rank of about `width` letters: F forward, X pair, B backward, b its input part, W
// weight gradients, . nothing, : message. A letter stands for what the rank does most of its time.
std::string schedule_text(const PictureSource& source, int width);

}  // namespace minke

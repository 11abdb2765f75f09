// Seconds of one training step: the phases of every stage (plan/phase_times.h), the schedule's list
// simulated with them (plan/simulate.h), and the end of the step.
//
//   step = pipeline + gradients + optimiser
//
// pipeline: the makespan of the simulation. gradients: reduce-scatter and all-gather of the slowest
// rank; optimiser: states read and written; both start when the last rank is done, for the norm of
// all gradients is needed before any weight moves. Exchange of tokens: waited for by F, B and BI,
// beside the computation of an overlapped pair.
#pragma once
#include <vector>

#include "plan/cost.h"
#include "plan/load_spread.h"
#include "plan/phase_times.h"
#include "plan/simulate.h"

namespace minke {

// What a rank does in a step, seconds; means of the devices that hold the same stages. The first
// five add up to the pipeline's time.
struct StepParts {
  double F = 0, B = 0, W = 0, FB = 0;  // B: whole backwards and gradients of inputs
  double bubble = 0;
  double gradients = 0, optimizer = 0;
};

struct StepTime {
  Layout layout;
  PhaseTimes phases;
  Schedule schedule;
  Simulation simulation;
  std::vector<StepParts> ranks;  // of the pipeline
  double pipeline_s = 0, gradients_s = 0, optimizer_s = 0;
  double step_s = 0;
  double bubble_s = 0;  // of the rank that binds (plan/bubble.h)
  double mfu = 0;       // causal, without recomputation and MTP, of the BF16 peak
  double mfu_with_mtp = 0;
  Speed speed() const { return {layout.tokens_per_step(), step_s, layout.devices()}; }
};

// The layout must have no structure_problem. With a spread every device of the job is simulated,
// or as many whole groups of expert ranks as the simulation takes. ConfigError when not even one
// fits, or when the schedule is larger than lists are made for.
StepTime step_time(const PlanModel& model, const Cluster& cluster, const Layout& layout,
                   const PhaseSettings& settings, const LoadSpread& loads = {});

// Computing time of an operation on the first replica, without what of it is exchange.
double computing_seconds(const StepTime& step, const Cluster& cluster, int rank,
                         const ScheduleOp& op);

}  // namespace minke

#include "plan/step_time.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

// Phases are linear in the load of the experts: two points give all.
StagePhases at_load(const StagePhases& even, const StagePhases& twice, double load) {
  const auto between = [load](double a, double b) { return a + (load - 1) * (b - a); };
  return {between(even.forward, twice.forward), between(even.backward_input, twice.backward_input),
          between(even.weight, twice.weight),   between(even.dispatch, twice.dispatch),
          between(even.combine, twice.combine), even.message};
}

std::size_t forward_stage(const Schedule& s, int rank, const ScheduleOp& op) {
  return static_cast<std::size_t>(s.stage(rank, op.forward.phase));
}
std::size_t backward_stage(const Schedule& s, int rank, const ScheduleOp& op) {
  return static_cast<std::size_t>(s.stage(rank, op.backward.phase));
}

// Times of the operations of every device.
class StageOperations {
 public:
  StageOperations(const PlanModel& m, const Cluster& c, const Layout& l, const PhaseSettings& set,
                  const LoadSpread& loads, const Schedule& schedule)
      : even_(phase_times(m, c, l, set).stages),
        twice_(phase_times(m, c, l, set, 2).stages),
        contents_(stage_contents(m, l)),
        loads_(loads),
        schedule_(schedule),
        left_(compute_left(c)) {}

  // Dispatches and combines in it.
  int parts(int rank, const ScheduleOp& op) const {
    const auto exchanges = [&](std::size_t stage) {
      return static_cast<int>(2 * (contents_[stage].moe_layers + contents_[stage].mtp_modules));
    };
    int n = 1;
    if (op.has_forward()) n = std::max(n, exchanges(forward_stage(schedule_, rank, op)));
    if (op.has_backward()) n = std::max(n, exchanges(backward_stage(schedule_, rank, op)));
    return n;
  }

  OpTime time(int rank, const ScheduleOp& op, Index device) const {
    StagePhases forward, backward;
    if (op.has_forward()) forward = phases(forward_stage(schedule_, rank, op), device, op.forward);
    if (op.kind != OpKind::F)
      backward = phases(backward_stage(schedule_, rank, op), device, op.backward);
    return op_time(op.kind, forward, backward, left_);
  }

 private:
  StagePhases phases(std::size_t stage, Index device, MicroBatch m) const {
    return at_load(even_[stage], twice_[stage], loads_.load(device, m.phase));
  }

  std::vector<StagePhases> even_, twice_;
  std::vector<StageContent> contents_;
  LoadSpread loads_;
  const Schedule& schedule_;
  double left_;
};

// The schedule's own complaint speaks of chunks.
Schedule schedule_of(const Layout& l) {
  try {
    return make_schedule(l.kind(), l.pipeline, l.micro_batches);
  } catch (const ConfigError& e) {
    throw ConfigError(
        fmt::format("micro-batches {} cannot be simulated: {}", l.micro_batches, e.what()));
  }
}

// Replicas that are simulated: one where all are the same.
Index simulated_replicas(const Layout& l, const LoadSpread& loads, const Schedule& schedule) {
  if (loads.spread == 0) return 1;
  Index n_ops = 0;
  for (const auto& ops : schedule.ranks) n_ops += static_cast<Index>(ops.size());
  const auto most = static_cast<Index>(kMaxOperations) / n_ops;
  return std::min(l.data, std::max(l.expert, most / l.expert * l.expert));
}

std::vector<StepParts> rank_parts(const StepTime& step) {
  const Index replicas = step.simulation.n_replicas();
  std::vector<StepParts> ranks;
  for (int rank = 0; rank < step.schedule.n_ranks; ++rank) {
    StepParts p;
    const auto& ops = step.schedule.ranks[static_cast<std::size_t>(rank)];
    for (std::size_t i = 0; i < ops.size(); ++i) {
      double seconds = 0;
      for (Index r = 0; r < replicas; ++r)
        seconds += step.simulation.end(rank, i, r) - step.simulation.begin(rank, i, r);
      seconds /= real(replicas);
      switch (ops[i].kind) {
        case OpKind::F:
          p.F += seconds;
          break;
        case OpKind::B:
        case OpKind::BI:
          p.B += seconds;
          break;
        case OpKind::W:
          p.W += seconds;
          break;
        case OpKind::FB:
          p.FB += seconds;
          break;
        case OpKind::Comm:
          break;
      }
    }
    p.bubble = step.pipeline_s - (p.F + p.B + p.W + p.FB);
    p.gradients = step.phases.gradients[static_cast<std::size_t>(rank)];
    p.optimizer = step.phases.optimizer[static_cast<std::size_t>(rank)];
    ranks.push_back(p);
  }
  return ranks;
}

}  // namespace

StepTime step_time(const PlanModel& m, const Cluster& c, const Layout& l, const PhaseSettings& set,
                   const LoadSpread& loads) {
  StepTime step;
  step.layout = l;
  step.phases = phase_times(m, c, l, set);
  step.schedule = schedule_of(l);
  const StageOperations operations(m, c, l, set, loads, step.schedule);
  const Index replicas = simulated_replicas(l, loads, step.schedule);
  const auto times = [&](int rank, const ScheduleOp& op, std::span<OpTime> out) {
    for (std::size_t r = 0; r < out.size(); ++r)
      out[r] = operations.time(rank, op, rank * l.data + static_cast<Index>(r));
    return operations.parts(rank, op);
  };
  const Simulator simulator(step.schedule);
  step.simulation = simulator.run({.n_replicas = replicas,
                                   .expert_group = replicas > 1 ? l.expert : 1,
                                   .message_time = step.phases.stages.front().message},
                                  times);
  step.pipeline_s = step.simulation.makespan;
  step.ranks = rank_parts(step);
  for (const StepParts& p : step.ranks) {
    step.gradients_s = std::max(step.gradients_s, p.gradients);
    step.optimizer_s = std::max(step.optimizer_s, p.optimizer);
  }
  step.bubble_s = step.ranks[static_cast<std::size_t>(binding_rank(step.schedule))].bubble;
  step.step_s = step.pipeline_s + step.gradients_s + step.optimizer_s;
  const auto mfu = [&](bool mtp) {
    return model_flops_utilisation(step.speed().tokens_per_s_per_device(),
                                   flops_per_token(m, {.sequence = l.sequence, .mtp = mtp}).train(),
                                   c.peak_bf16_flops_per_s);
  };
  step.mfu = mfu(false);
  step.mfu_with_mtp = mfu(l.mtp);
  return step;
}

double computing_seconds(const StepTime& step, const Cluster& c, int rank, const ScheduleOp& op) {
  StagePhases forward, backward;
  if (op.has_forward()) forward = step.phases.stages[forward_stage(step.schedule, rank, op)];
  if (op.kind != OpKind::F) backward = step.phases.stages[backward_stage(step.schedule, rank, op)];
  return op_time(op.kind, forward, backward, compute_left(c)).compute;
}

}  // namespace minke

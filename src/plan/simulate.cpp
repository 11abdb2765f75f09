#include "plan/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace minke {
namespace {

std::string describe(int rank, std::size_t op, const ScheduleOp& o) {
  return fmt::format("rank {}, operation {} ({})", rank, op, name_of(o.kind));
}

// The parts of one operation for a group of replicas: moves `clock` from begin to end.
void run_parts(std::span<const OpTime> times, int parts, std::span<double> clock,
               std::span<RankTime> ranks) {
  const bool exchange =
      std::any_of(times.begin(), times.end(), [](const OpTime& t) { return t.exchange > 0; });
  const bool hidden = std::any_of(times.begin(), times.end(),
                                  [](const OpTime& t) { return t.hidden_exchange > 0; });
  if (!exchange && !hidden) {
    for (std::size_t i = 0; i < times.size(); ++i) {
      clock[i] += times[i].compute;
      ranks[i].compute += times[i].compute;
    }
    return;
  }
  for (int part = 0; part < parts; ++part) {
    const double all_here = *std::max_element(clock.begin(), clock.end());
    double all_computed = 0;
    for (std::size_t i = 0; i < times.size(); ++i) {
      const double compute = times[i].compute / parts, hide = times[i].hidden_exchange / parts;
      double end = clock[i] + compute;
      if (hidden && all_here + hide > end) {
        const double on_the_wire = std::max(0.0, hide - compute);
        ranks[i].exchange += on_the_wire;
        ranks[i].straggling += all_here + hide - end - on_the_wire;
        end = all_here + hide;
      }
      ranks[i].compute += compute;
      clock[i] = end;
      all_computed = std::max(all_computed, end);
    }
    if (!exchange) continue;
    for (std::size_t i = 0; i < times.size(); ++i) {
      ranks[i].straggling += all_computed - clock[i];
      ranks[i].exchange += times[i].exchange / parts;
      clock[i] = all_computed + times[i].exchange / parts;
    }
  }
}

}  // namespace

double unit_time(const UnitTimes& t, const ScheduleOp& op) {
  switch (op.kind) {
    case OpKind::F:
      return t.forward;
    case OpKind::B:
      return t.backward;
    case OpKind::BI:
      return t.backward - t.weight;
    case OpKind::W:
      return t.weight;
    case OpKind::FB:
      return t.pair;
    case OpKind::Comm:
      break;
  }
  return 0;
}

Simulator::Simulator(const Schedule& schedule) : schedule_(schedule), links_(schedule) {}

// One walk over the lists: each rank goes on until an operation of another rank must come first.
class Simulator::Walk {
 public:
  Walk(const Simulator& simulator, const SimulationOptions& options, OpTimes times)
      : simulator_(simulator),
        options_(options),
        times_(times),
        R_(static_cast<std::size_t>(options.n_replicas)),
        G_(static_cast<std::size_t>(options.expert_group)),
        n_ranks_(simulator.schedule_.ranks.size()),
        at_(n_ranks_, 0),
        posted_(n_ranks_, false),
        waiters_(n_ranks_),
        clock_(n_ranks_ * R_, 0.0),
        op_times_(R_) {
    result_.n_replicas_ = options.n_replicas;
    result_.first_op_ = simulator.links_.first_op();
    result_.ranks_.resize(n_ranks_ * R_);
    result_.begin_.resize(simulator.links_.n_ops() * R_);
    result_.end_.resize(simulator.links_.n_ops() * R_);
  }

  Simulation run() {
    std::vector<int> ready;
    for (std::size_t rank = n_ranks_; rank-- > 0;) ready.push_back(static_cast<int>(rank));
    while (!ready.empty()) {
      const int rank = ready.back();
      ready.pop_back();
      if (!advance(rank)) continue;
      auto& waiters = waiters_[static_cast<std::size_t>(rank)];
      ready.insert(ready.end(), waiters.begin(), waiters.end());
      waiters.clear();
    }
    for (std::size_t rank = 0; rank < n_ranks_; ++rank)
      if (at_[rank] < n_ops(rank)) throw_circle(static_cast<int>(rank));
    result_.makespan = *std::max_element(clock_.begin(), clock_.end());
    for (RankTime& t : result_.ranks_) {
      t.bubble = result_.makespan - t.busy();
      if (std::abs(t.bubble) < 1e-12 * result_.makespan) t.bubble = 0;  // rounding of the sums
    }
    return std::move(result_);
  }

 private:
  std::size_t n_ops(std::size_t rank) const { return simulator_.schedule_.ranks[rank].size(); }
  const ScheduleOp& op(int rank) const {
    return simulator_.schedule_
        .ranks[static_cast<std::size_t>(rank)][at_[static_cast<std::size_t>(rank)]];
  }
  std::span<double> row(std::vector<double>& values, OpRef ref) const {
    return std::span(values).subspan(simulator_.links_.index(ref) * R_, R_);
  }
  // The first operation that must come before the next one of `rank`, or nullptr.
  const OpRef* missing(int rank) const {
    const auto p = static_cast<std::size_t>(rank);
    const bool comm = op(rank).kind == OpKind::Comm;
    const bool blocking = options_.messages == Messages::Blocking;
    if (comm != blocking) return nullptr;  // the other form's dependencies
    for (const OpRef& ref : simulator_.links_.of({rank, static_cast<int>(at_[p])})) {
      const auto q = static_cast<std::size_t>(ref.rank);
      const auto needed = static_cast<std::size_t>(ref.op);
      const bool there = at_[q] > needed || (blocking && at_[q] == needed && posted_[q]);
      if (!there) return &ref;
    }
    return nullptr;
  }

  // Whether it executed or posted anything.
  bool advance(int rank) {
    const auto p = static_cast<std::size_t>(rank);
    bool moved = false;
    while (at_[p] < n_ops(p)) {
      if (op(rank).kind == OpKind::Comm && !posted_[p]) {
        const auto clock = std::span(clock_).subspan(p * R_, R_);
        const auto begin = row(result_.begin_, {rank, static_cast<int>(at_[p])});
        std::copy(clock.begin(), clock.end(), begin.begin());
        posted_[p] = moved = true;
      }
      if (const OpRef* ref = missing(rank)) {
        waiters_[static_cast<std::size_t>(ref->rank)].push_back(rank);
        return moved;
      }
      execute(rank);
      posted_[p] = false;
      ++at_[p];
      moved = true;
    }
    return moved;
  }

  void execute(int rank) {
    const auto p = static_cast<std::size_t>(rank);
    const OpRef here{rank, static_cast<int>(at_[p])};
    const ScheduleOp& o = op(rank);
    const auto clock = std::span(clock_).subspan(p * R_, R_);
    const auto wait_for = [&](std::span<const double> time) {
      for (std::size_t i = 0; i < R_; ++i)
        clock[i] = std::max(clock[i], time[i] + options_.message_time);
    };
    const bool blocking = options_.messages == Messages::Blocking;
    if (o.kind == OpKind::Comm) {
      if (blocking) {
        wait_for(row(result_.begin_, here));
        for (const OpRef& batch : simulator_.links_.of(here)) wait_for(row(result_.begin_, batch));
      }
    } else {
      if (!blocking)
        for (const OpRef& producer : simulator_.links_.of(here))
          wait_for(row(result_.end_, producer));
      const auto begin = row(result_.begin_, here);
      std::copy(clock.begin(), clock.end(), begin.begin());
      std::fill(op_times_.begin(), op_times_.end(), OpTime{});
      const int parts = times_(rank, o, op_times_);
      for (std::size_t first = 0; first < R_; first += G_)
        run_parts(std::span(op_times_).subspan(first, G_), parts, clock.subspan(first, G_),
                  std::span(result_.ranks_).subspan(p * R_ + first, G_));
    }
    const auto end = row(result_.end_, here);
    std::copy(clock.begin(), clock.end(), end.begin());
  }

  [[noreturn]] void throw_circle(int rank) const {
    std::string ranks;
    for (std::size_t steps = 0; steps <= n_ranks_; ++steps) {
      const OpRef* ref = missing(rank);
      ranks += fmt::format("{}{}", ranks.empty() ? "" : "; ",
                           describe(rank, at_[static_cast<std::size_t>(rank)], op(rank)));
      if (ref == nullptr || steps >= 4) break;
      rank = ref->rank;
      if (at_[static_cast<std::size_t>(rank)] >= n_ops(static_cast<std::size_t>(rank))) break;
    }
    throw ConfigError("schedule: ranks wait for each other: " + ranks);
  }

  const Simulator& simulator_;
  const SimulationOptions& options_;
  OpTimes times_;
  std::size_t R_, G_, n_ranks_;
  std::vector<std::size_t> at_;            // [N] next operation
  std::vector<bool> posted_;               // [N] it is a COMM whose messages are posted
  std::vector<std::vector<int>> waiters_;  // [N] ranks to look at again when this one went on
  std::vector<double> clock_;              // [N, R]
  std::vector<OpTime> op_times_;           // [R] of the operation at hand
  Simulation result_;
};

Simulation Simulator::run(const SimulationOptions& o, OpTimes times) const {
  if (o.n_replicas < 1 || o.n_replicas > static_cast<Index>(kMaxOperations))
    throw ConfigError(
        fmt::format("replicas is {}, but must be from 1 to {}", o.n_replicas, kMaxOperations));
  if (o.expert_group < 1 || o.n_replicas % o.expert_group != 0)
    throw ConfigError(
        fmt::format("expert-group is {}, but must be at least 1 and divide replicas = {}",
                    o.expert_group, o.n_replicas));
  if (!(o.message_time >= 0))
    throw ConfigError(fmt::format("message-time is {}, but must be at least 0", o.message_time));
  if (links_.n_ops() > kMaxOperations / static_cast<std::size_t>(o.n_replicas))
    throw ConfigError(fmt::format(
        "{} replicas of {} operations are more than the {} that fit; nearest: {} replicas",
        o.n_replicas, links_.n_ops(), kMaxOperations,
        std::max<std::size_t>(1, kMaxOperations / links_.n_ops())));
  return Walk(*this, o, times).run();
}

Simulation Simulator::run(const UnitTimes& times, Messages messages) const {
  return run({.messages = messages}, [&](int, const ScheduleOp& op, std::span<OpTime> replicas) {
    for (OpTime& t : replicas) t.compute = unit_time(times, op);
    return 1;
  });
}

}  // namespace minke

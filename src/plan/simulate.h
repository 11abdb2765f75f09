// When every operation of every rank begins and ends, for a schedule list and the times of its
// operations.
//
// A job is N pipeline ranks times R replicas: R devices hold the same stages, execute the same list
// and differ in their times, for each holds other experts and gets other loads. A micro-batch stays
// with its replica from stage to stage. Replicas in groups of G share the experts of a layer: what
// one of them sends to experts goes to all of its group, so an exchange (dispatch or combine)
// begins for all when the slowest of the group arrives.
//
// An operation has `parts`, the exchanges in it, and each rank does in every part, one after
// another,
//
//   a_i = max(s_i + compute_i / parts, [hidden] max_j s_j + hidden_i / parts)
//   e_i =                              [exchange] max_j a_j + exchange_i / parts, else a_i
//
// with s_i the end of the part before and j over the group: `hidden` exchanges run beside the
// computation (the other half of an overlapped pair), `exchange` ones after it. A time of 0 for all
// of the group means that there is no exchange and nobody waits.
//
// All dependencies point from the list's earlier operations to later ones, so one walk over the
// list gives the times of a discrete-event simulation, for all replicas of an operation at once:
// 64 ranks x 256 replicas x 256 micro-batches, 13 million operations, in about a second.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/threads.h"
#include "parallel/schedule.h"
#include "plan/bubble.h"
#include "plan/schedule_links.h"

namespace minke {

struct OpTime {  // of one operation on one rank
  double compute = 0;
  double exchange = 0;         // exchanges that the rank waits for
  double hidden_exchange = 0;  // exchanges beside the computation
};

// Fills the times of `op` of pipeline rank `rank` for all replicas (zeros before); returns `parts`,
// at least 1. Called once for each computing operation of the list, in no particular order.
using OpTimes = FunctionRef<int(int rank, const ScheduleOp& op, std::span<OpTime> replicas)>;

// The time of `op` where all stages cost the same and nothing is exchanged.
double unit_time(const UnitTimes& times, const ScheduleOp& op);

enum class Messages {
  Asynchronous,  // an operation starts when its inputs have arrived; sending never blocks
  Blocking  // COMM as written: the rank goes on when all of its messages are complete, and each
            // takes its time from when both ends have posted it
};

// Of all ranks that a simulation keeps begin and end of: 1 GiB.
inline constexpr std::size_t kMaxOperations = std::size_t{1} << 26;

struct SimulationOptions {
  Index n_replicas = 1;    // R
  Index expert_group = 1;  // G; divides R
  Messages messages = Messages::Asynchronous;
  double message_time = 0;  // of one activation or gradient between two stages
};

struct RankTime {  // of one rank; the four add up to the makespan
  double compute = 0;
  double exchange = 0;    // on the wire and not hidden
  double straggling = 0;  // in exchanges, waiting for slower ranks of the group
  double bubble = 0;      // waiting for other stages, and before its first and after its last
  double busy() const { return compute + exchange + straggling; }
};

class Simulation {
 public:
  double makespan = 0;
  // Rank `rank` of replica `replica`.
  const RankTime& of(int rank, Index replica = 0) const {
    return ranks_[static_cast<std::size_t>(rank * n_replicas_ + replica)];
  }
  // Operation `op` of its list. A COMM lasts from its posting to the last message's arrival
  // (asynchronous: no time).
  double begin(int rank, std::size_t op, Index replica = 0) const {
    return begin_[at(rank, op, replica)];
  }
  double end(int rank, std::size_t op, Index replica = 0) const {
    return end_[at(rank, op, replica)];
  }
  Index n_replicas() const { return n_replicas_; }
  std::size_t n_operations() const { return end_.size(); }  // of all ranks, COMM included

 private:
  friend class Simulator;
  std::size_t at(int rank, std::size_t op, Index replica) const {
    return (first_op_[static_cast<std::size_t>(rank)] + op) *
               static_cast<std::size_t>(n_replicas_) +
           static_cast<std::size_t>(replica);
  }
  Index n_replicas_ = 1;
  std::vector<std::size_t> first_op_;  // [N]
  std::vector<RankTime> ranks_;        // [N, R]
  std::vector<double> begin_, end_;    // [operations of all lists, R]
};

// One schedule, prepared for many simulations.
class Simulator {
 public:
  // `schedule` must outlive the simulator. ConfigError when its messages do not match.
  explicit Simulator(const Schedule& schedule);

  // ConfigError when the options do not fit (sizes, 2^26 operations of all ranks at most), and
  // naming the ranks when they wait for each other in a circle.
  Simulation run(const SimulationOptions& options, OpTimes times) const;
  // All stages cost the same.
  Simulation run(const UnitTimes& times, Messages messages = Messages::Asynchronous) const;

 private:
  class Walk;

  const Schedule& schedule_;
  ScheduleLinks links_;
};

}  // namespace minke

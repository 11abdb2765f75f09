// Pipeline schedules as data: what every pipeline rank of one training step executes, in order.
//
//   1f1b       one forward, one backward (Narayanan et al., arXiv 2104.04473): full backward passes
//   zb1p       1F1B whose weight gradients fill the bubbles (Qi et al., arXiv 2401.10241)
//   dualpipe   micro-batches from both ends of the pipeline (the report, section 3.2.1): two copies
//              of the parameters, pairs of a forward and a backward executed together
//   dualpipev  one half of dualpipe, folded: every micro-batch goes down the ranks and comes back
//
// Pure functions: the executor, the planner's simulation, the drawings and the tests read the same
// lists. Micro-batches are counted within a phase, the direction in which they pass the ranks:
//
//   phase 0 runs rank 0 -> N-1, phase 1 runs rank N-1 -> 0 (dualpipe, dualpipev only)
//   dualpipe   two streams of C/2 micro-batches, each with its inputs at one end and its loss at
//              the other; rank r holds stage r of phase 0 and stage N-1-r of phase 1
//   dualpipev  C micro-batches that pass phase 0 and then phase 1; rank r holds stages r and
//              2N-1-r; inputs and losses are on rank 0, and rank N-1 hands on without a message
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace minke {

enum class ScheduleKind { OneFOneB, Zb1p, DualPipe, DualPipeV };
// Micro-batches pass the ranks in both directions, and forwards are paired with backwards.
constexpr bool has_two_phases(ScheduleKind kind) {
  return kind == ScheduleKind::DualPipe || kind == ScheduleKind::DualPipeV;
}
// Stages of the model that `n_ranks` ranks hold: dualpipev cuts it into two a rank.
constexpr std::int64_t stages_of(ScheduleKind kind, std::int64_t n_ranks) {
  return kind == ScheduleKind::DualPipeV ? 2 * n_ranks : n_ranks;
}
enum class OpKind : std::uint8_t {
  F,    // forward
  B,    // full backward: gradients of inputs and weights
  BI,   // gradients of inputs; those of the weights wait for a W
  W,    // the gradients of the weights of the oldest waiting BI
  FB,   // a forward and a full backward as one overlapped pair
  Comm  // messages, all posted at once; the rank goes on when all are complete
};
enum class MessageKind : std::uint8_t { SendF, RecvF, SendB, RecvB };  // activations, gradients

struct MicroBatch {
  int phase = 0;
  int chunk = 0;
  bool operator==(const MicroBatch&) const = default;
};

struct StageMessage {
  MessageKind kind;
  MicroBatch micro_batch;
  int peer;  // rank at the other end
  bool operator==(const StageMessage&) const = default;
};

struct ScheduleOp {
  OpKind kind;
  int step;                            // part of the schedule, 1 to 8
  MicroBatch forward;                  // of F and FB
  MicroBatch backward;                 // of B, BI, W and FB
  std::vector<StageMessage> messages;  // of Comm, in the order in which they were produced
  bool operator==(const ScheduleOp&) const = default;

  bool has_forward() const { return kind == OpKind::F || kind == OpKind::FB; }
  // Computes gradients of inputs.
  bool has_backward() const {
    return kind == OpKind::B || kind == OpKind::BI || kind == OpKind::FB;
  }
};

struct Schedule {
  ScheduleKind kind;
  int n_ranks;                                 // N
  int n_chunks;                                // C, micro-batches of a step
  std::vector<std::vector<ScheduleOp>> ranks;  // [N] operations of each rank, in order

  int n_phases() const { return has_two_phases(kind) ? 2 : 1; }
  int n_stages() const { return static_cast<int>(stages_of(kind, n_ranks)); }
  int chunks_per_phase() const { return kind == ScheduleKind::DualPipe ? n_chunks / 2 : n_chunks; }
  // The stage of the model that `rank` computes for micro-batches of `phase`.
  int stage(int rank, int phase) const;
  // The rank that sends activations of `phase` to `rank`, or -1: inputs, or handed on in place.
  int upstream(int rank, int phase) const;
  // The rank that `rank` sends them to, or -1.
  int downstream(int rank, int phase) const;
};

// Sizes that a kind needs: dualpipe even ranks, even chunks, chunks >= 2 ranks; dualpipev chunks >=
// 2 ranks; 1f1b and zb1p any from 1. ConfigError naming what is wrong and the nearest size that
// works; also for sizes beyond what a list is made for (16,384 ranks, ranks x chunks of 2^21).
Schedule make_schedule(ScheduleKind kind, std::int64_t n_ranks, std::int64_t n_chunks);

// What an activation costs while it lives: `saved` from the start of its forward to the end of its
// B or BI, then `weight_work` to the end of its W. One value a phase, in any unit.
struct ActivationSize {
  double saved[2] = {1, 1};
  double weight_work[2] = {0, 0};
};
// The largest sum of live activations while a rank executes its list. Lists are executed in order,
// so this holds whatever the durations.
double peak_activations(const std::vector<ScheduleOp>& ops, const ActivationSize& size);

std::string_view name_of(ScheduleKind kind);  // "1f1b", "zb1p", "dualpipe", "dualpipev"
std::string_view name_of(OpKind kind);        // "F", "B", "BI", "W", "FB", "COMM"
std::string_view name_of(MessageKind kind);   // "send_f", "recv_f", "send_b", "recv_b"
ScheduleKind parse_schedule_kind(const std::string& name);  // ConfigError lists the names

}  // namespace minke

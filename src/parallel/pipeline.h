// Executes one rank's list of a schedule (parallel/schedule.h), whatever a stage is: a part of a
// model (parallel/model_stages.h), or a sleep that stands for one.
//
// Messages are posted where the list's COMM says, without blocking; an operation waits for its own
// inputs only. So the rank goes on computing while a message of its batch is still under way, which
// a list that waits for whole batches would not.
#pragma once
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/schedule.h"
#include "parallel/strands.h"
#include "parallel/timeline.h"

namespace minke {

using MessageBytes = std::vector<std::byte>;

// What a rank computes. In an overlapped pair (a baton is given) a forward and a backward of
// different micro-batches are under way at the same time, taking turns: never two forwards.
class StageRunner {
 public:
  virtual ~StageRunner() = default;

  // Of the activations of a micro-batch between two stages, and of their gradients.
  virtual std::size_t message_bytes(MicroBatch micro_batch) const = 0;

  // F: activations from the stage before (empty on the first) -> for the next (empty on the last).
  virtual MessageBytes forward(MicroBatch micro_batch, MessageBytes input) = 0;
  // BI: gradient from the next stage (empty on the last) -> for the stage before (empty on the
  // first). A W follows.
  virtual MessageBytes backward_input(MicroBatch micro_batch, MessageBytes dy) = 0;
  // B: BI and W at once.
  virtual MessageBytes backward(MicroBatch micro_batch, MessageBytes dy) = 0;
  virtual void backward_weight(MicroBatch micro_batch) = 0;

  // B as BI, which leaves its W in parts: strands that wait do them, and what is left is done
  // before the next W or the end. The runner itself does some where it would keep too many. Or B at
  // once, without parts.
  virtual MessageBytes backward_in_parts(MicroBatch micro_batch, MessageBytes dy) {
    return backward(micro_batch, std::move(dy));
  }
  // Does the next part, whose micro-batch is returned; nothing when none is there.
  virtual std::optional<MicroBatch> backward_weight_part() { return std::nullopt; }
};

struct PipelineRank {
  Timeline* timeline = nullptr;  // what happened when goes there
  // With one, both halves of an FB run as strands, and parts of W fill waits of every B and FB; the
  // runner's exchanges must go through an OverlappingCommunicator of this baton
  // (parallel/strands.h). Without, the forward runs before the backward.
  Baton* baton = nullptr;
};

// Runs the list of pipeline.rank(), to the completion of its last send. Collective over `pipeline`,
// whose size is the schedule's n_ranks (CommError otherwise) and whose tags 0 to 3 it uses. Throws
// what the runner throws, and RankFailure.
void run_pipeline(const Schedule& schedule, Communicator& pipeline, StageRunner& runner,
                  const PipelineRank& rank = {});

// Who has computed a stage: with dualpipe two ranks, rank r for phase 0 and N-1-r for phase 1.
struct StageHolder {
  int rank, phase;
  bool operator==(const StageHolder&) const = default;
};
// In the order of their micro-batches: the gradients of a stage are summed over its holders in this
// order, phase 0 having the first half of the micro-batches.
std::vector<StageHolder> holders_of(const Schedule& schedule, int stage);
// The number of a micro-batch within the pipeline's share of the batch, 0 to n_chunks - 1: with
// dualpipe phase 1 has the second half, with dualpipev both phases are of the same micro-batch.
int index_of(const Schedule& schedule, MicroBatch micro_batch);

}  // namespace minke

// A step on several ranks: pipeline, experts and micro-batches shared out
// (train/training_layout.h), optimiser states sharded (ZeRO-1).
//
// Each rank has the stages and the share of the routed experts that its config says it holds
// (hold_part), and each pipeline a range of the batch's micro-batches (share_of in
// parallel/mesh.h), which pass its stages as the schedule says (parallel/pipeline.h). Gradients are
// summed slice by slice on the rank that owns the slice, which updates it and sends its weights to
// all replicas (train/replica_sets.h). Losses are summed in the order of micro-batches, expert
// loads over all ranks; so each rank has the same results, and the same biases and decisions follow
// from them.
//
// The sum of gradients g_m over micro-batches m:
//   Fast     each rank adds its own as they come; then in the order of ranks
//   Fixed    ((g_0 + g_1) + g_2) + ...: the same bits on any layout. Each g_m is computed into a
//            buffer of zeros, the two uses of the embedding apart, and those of routed experts by
//            the rank that the tokens came from. A rank keeps a buffer for each of its
//            micro-batches. Only the first one of ranks that have the whole model adds its own as
//            they come, since they are the first.
#pragma once
#include "parallel/communicator.h"
#include "parallel/model_stages.h"
#include "train/recipe.h"
#include "train/step_form.h"
#include "train/training_layout.h"

namespace minke {

struct RankedSettings {
  TrainingLayout layout;
  GradientOrder order = GradientOrder::Fast;
  ExchangeForm exchange = {};            // rows to experts and back
  std::chrono::milliseconds timeout{0};  // of a wait, as set for the world; 0: for ever
  std::vector<std::string> no_decay = default_no_decay();
};

// Collective over `world`. `state` is of the part that the rank holds; its moments and average are
// taken out of it. Both must outlive the form. A stop is agreed upon at the beginning of a step.
std::unique_ptr<StepForm> ranked_step(Communicator& world, TrainState& state,
                                      const RankedSettings& settings);

GradientOrder parse_reduction_order(std::string_view name);  // "fast", "fixed"

}  // namespace minke

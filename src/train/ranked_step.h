// A step on several ranks: data parallel with sharded optimiser states (ZeRO-1).
//
// Each rank has the whole model and a range of the batch's micro-batches (share_of in
// parallel/mesh.h). Gradients are summed slice by slice on the rank that owns the slice, which
// updates it and sends its weights to all (parallel/zero1.h). Losses are summed in the order of
// micro-batches, expert loads over all ranks; so each rank has the same results, and the same
// biases, average of the weights and decisions follow from them.
//
// The sum of gradients g_m over micro-batches m:
//   Fast     each rank adds its own as they come; then in the order of ranks
//   Fixed    ((g_0 + g_1) + g_2) + ...: the same bits on any number of ranks. Each g_m is computed
//            into a buffer of zeros. Rank 0 adds its own as they come, since they are the first;
//            the others keep a buffer for each of theirs.
#pragma once
#include "parallel/communicator.h"
#include "train/recipe.h"
#include "train/step_form.h"

namespace minke {

enum class ReductionOrder : std::uint8_t { Fast, Fixed };
ReductionOrder parse_reduction_order(std::string_view name);  // "fast", "fixed"

struct RankedSettings {
  ReductionOrder order = ReductionOrder::Fast;
  std::vector<std::string> no_decay = default_no_decay();
};

// Collective over `world`. Takes the moments out of `state`, the same on all ranks; both must
// outlive the form. A stop is agreed upon at the beginning of a step.
std::unique_ptr<StepForm> ranked_step(Communicator& world, TrainState& state,
                                      const RankedSettings& settings);

// ConfigError naming the nearest sizes unless every step of the run gives `n_ranks` ranks equally
// many whole micro-batches.
void check_micro_batches(const Recipe& recipe, int n_ranks);

}  // namespace minke

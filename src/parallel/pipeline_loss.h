// Some rows forward through the stages of a pipeline, where no rank has the whole model: their main
// loss (evaluate_loss in model/training_pass.h), or where they leave the finite numbers, with the
// bits of one rank. Activations travel in FP32 whatever the compute.
#pragma once
#include <optional>
#include <vector>

#include "model/stage.h"
#include "model/training_pass.h"
#include "parallel/communicator.h"

namespace minke {

// The rank that computes a stage forward: stages go down the ranks, and come back up when there are
// two for each.
int forward_holder(int stage, int n_ranks);

// Collective over `pipeline`; tokens [B, T+1] are the same on all. `stages` are those of the whole
// model, `model` has the weights of the own ones. The loss on the rank of the last stage, nothing
// on the others. Uses tag 4.
std::optional<double> pipeline_loss(const Model& model, Communicator& pipeline,
                                    const std::vector<StageRange>& stages,
                                    View2<const std::int32_t> tokens, DocumentStarts starts = {});

// Collective likewise: find_non_finite_output of the whole model, on all ranks.
std::optional<NonFiniteOutput> pipeline_non_finite_output(const Model& model,
                                                          Communicator& pipeline,
                                                          const std::vector<StageRange>& stages,
                                                          View2<const std::int32_t> tokens,
                                                          DocumentStarts starts = {});

}  // namespace minke

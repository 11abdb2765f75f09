// How a model is cut into pipeline stages (StageRange in model/config.h).
#pragma once
#include <vector>

#include "model/config.h"

namespace minke {

StageRange whole_model(const ModelConfig& config);

// The stages of a pipeline, first to last. Every stage has a layer, but for the last one, which may
// hold the output alone. ConfigError when there are not enough layers.
//
// What a stage costs is the parameters that a token meets in a product: attention, router, shared
// and chosen experts of its layers, the head once for the next token and once for each MTP module,
// the modules' blocks and eh_proj. The embedding, a copy of one row, costs nothing, and attention's
// own products are the same in every layer. The cut makes the most expensive stage, which sets the
// pace of the pipeline, as cheap as can be, and of such cuts takes the one with the smallest sum of
// squares.
std::vector<StageRange> cut_stages(const ModelConfig& config, Index n_stages);

// The cost of a stage, as above.
double stage_cost(const ModelConfig& config, const StageRange& range);

}  // namespace minke

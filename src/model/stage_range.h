// Which part of the model a pipeline stage holds, and how a model is cut into stages.
#pragma once
#include <vector>

#include "model/config.h"

namespace minke {

// Layers [first, last), with the embedding before them on the first stage, and on the last one what
// is behind them: final norm, output head, MTP modules. Modules read the embedding as well, so the
// last stage has a copy of it.
struct StageRange {
  Index first = 0, last = 0;
  bool embedding = false;
  bool output = false;

  Index n_layers() const { return last - first; }
  bool holds_layer(Index layer) const { return first <= layer && layer < last; }
  bool operator==(const StageRange&) const = default;
};

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

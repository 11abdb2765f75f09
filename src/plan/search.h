// The best layouts of a model on a cluster: every pipeline, expert and data split, micro-batch,
// schedule and recomputation, layers moved so that ranks compute equally long; those that fit
// ranked by the closed form of their step.
#pragma once
#include <string>
#include <vector>

#include "plan/phase_times.h"

namespace minke {

struct SearchSettings {
  Index batch = 15360;  // sequences a step
  Index sequence = 4096;
  bool fp8 = true;
  bool mtp = true;
  Index keep = 20;  // layouts returned

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch, "sequences of a step", between(1, 1 << 24));
    field("sequence", sequence, "tokens of a sequence", between(1, 1 << 24));
    field("fp8", fp8, "products, exchange and kept activations in FP8");
    field("mtp", mtp, "with the model's MTP modules");
    field("keep", keep, "layouts shown", between(1, 10000));
  }
};

struct RankedLayout {
  Layout layout;
  StepEstimate step;
  double memory_share = 0;  // of the fullest device
  std::string bound;        // what limits it
};

struct SearchResult {
  std::vector<RankedLayout> best;  // most tokens a second and device first
  Index tried = 0, fit = 0;        // structurally sound layouts, and those within memory
  double least_memory_bytes = 0;   // of the fullest device, over all tried
};
SearchResult search_layouts(const PlanModel& model, const Cluster& cluster,
                            const SearchSettings& search, const PhaseSettings& phases);

}  // namespace minke

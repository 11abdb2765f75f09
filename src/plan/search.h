// The best layouts of a model on a cluster: every pipeline up to the layers, every number of expert
// ranks that divides, micro-batches of 1 to 16 sequences, every schedule and recomputation, layers
// moved so that ranks compute equally long; those that fit ranked by the closed form of their step.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "plan/phase_times.h"

namespace minke {

struct SearchSettings {
  Index batch = 15360;  // sequences a step
  Index sequence = 4096;
  bool fp8 = true;
  bool mtp = true;
  Index keep = 20;     // layouts returned
  Index simulate = 0;  // the best of the closed form, ranked again by simulation

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch, "sequences of a step", between(1, 1 << 24));
    field("sequence", sequence, "tokens of a sequence", between(1, 1 << 24));
    field("fp8", fp8, "products, exchange and kept activations in FP8");
    field("mtp", mtp, "with the model's MTP modules");
    field("keep", keep, "layouts shown", between(1, 10000));
    field("simulate", simulate, "so many of the best are ranked by simulation; 0: none",
          between(0, 10000));
  }
};

struct RankedLayout {
  Layout layout;
  StepEstimate step;
  double memory_share = 0;                    // of the fullest device
  std::string bound;                          // what limits it
  double simulated_s = 0, simulated_mfu = 0;  // of the step; 0: not simulated
  double seconds() const { return simulated_s > 0 ? simulated_s : step.step_s; }
};

struct SearchResult {
  std::vector<RankedLayout> best;        // shortest step first; all have the same batch
  Index looked_at = 0, tried = 0;        // all, and those whose shape can be
  Index fit = 0;                         // of them, within memory
  std::map<std::string, Index> dropped;  // why the others fell out
  double least_memory_bytes = 0;         // of the fullest device, over all tried
};
SearchResult search_layouts(const PlanModel& model, const Cluster& cluster,
                            const SearchSettings& search, const PhaseSettings& phases);

}  // namespace minke

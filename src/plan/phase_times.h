// Roofline durations of the phases of one micro-batch on every stage and rank, for a schedule to be
// simulated or for its closed form.
//
//   F    2 x matrix parameters x T / (peak x efficiency) + attention / (BF16 peak x efficiency)
//   BI   as F, attention twice, and what is recomputed        W    the products of F once more
//   dispatch, combine   bytes of T tokens / bandwidth: over both links, the slower counts
//                       (rows cross the inner link while others cross the outer one)
//
// Alone, a phase waits for its exchange; an overlapped pair takes the longer of the two, on the
// compute units that communication leaves (arXiv 2412.19437, section 3.2.1). Efficiencies are
// settings: measured (`minke bench`) or assumed.
#pragma once
#include <vector>

#include "plan/layout.h"

namespace minke {

struct PhaseSettings {
  // Assumed. With them the overlapped pair of DeepSeek-V3's middle ranks takes the 0.14 s that
  // follow from the step parts of arXiv 2505.09343, table 4.
  double fp8_efficiency = 0.3;
  double bf16_efficiency = 0.6;
  double attention_efficiency = 0.4;
  double link_efficiency = 1;      // of the cluster's bandwidths, which are effective ones
  double memory_efficiency = 0.8;  // of optimiser steps

  template <class Visitor>
  void visit(Visitor& field) {
    field("fp8-efficiency", fp8_efficiency, "share of the FP8 peak that products reach, assumed",
          between(0.001, 1));
    field("bf16-efficiency", bf16_efficiency, "share of the BF16 peak that products reach, assumed",
          between(0.001, 1));
    field("attention-efficiency", attention_efficiency,
          "share of the BF16 peak that attention reaches, assumed", between(0.001, 1));
    field("link-efficiency", link_efficiency, "share of the cluster's bandwidths",
          between(0.001, 1));
    field("memory-efficiency", memory_efficiency, "share of the memory bandwidth, assumed",
          between(0.001, 1));
  }
};

// Seconds of one micro-batch on one stage.
struct StagePhases {
  double forward = 0;         // computing only
  double backward_input = 0;  // computing only, recomputation included
  double weight = 0;
  double dispatch = 0, combine = 0;  // of the forward pass; the backward pass has the same again
  double message = 0;                // to the next stage
};

// Durations in the words of the schedules: F, B (whole), BI, W alone, FB an overlapped pair.
struct OpSeconds {
  double F = 0, B = 0, BI = 0, W = 0, FB = 0;
  bool exchange_bound = false;  // FB waits for the network
};

struct PhaseTimes {
  std::vector<StagePhases> stages;
  std::vector<OpSeconds> ops;     // of the stages
  std::vector<double> gradients;  // of the ranks: reduce-scatter and all-gather, once a step
  std::vector<double> optimizer;  // of the ranks: states read and written, once a step
};

// `expert_load` scales experts' work and exchange: load of the busiest device over the mean.
PhaseTimes phase_times(const PlanModel& model, const Cluster& cluster, const Layout& layout,
                       const PhaseSettings& settings, double expert_load = 1);

// Step of the closed forms of golden/dualpipe (arXiv 2412.19437, table 2), with the mean of the two
// stages of a rank, and the slowest rank:
//   1F1B      M (F + B) + (PP - 1) (F + B)          ZB1P   M (F + B) + (PP - 1) (F + B - 2 W)
//   DualPipe  (PP/2 - 1) (FB + B - 3 W) + (M - PP - 1) FB + (PP + 1) (F + B)
// M: forwards of a rank. Equal stages and instantaneous messages; `bubble` is the first or last
// term, which the published table gives.
struct StepEstimate {
  double step_s = 0;
  double pipeline_s = 0, bubble_s = 0, gradients_s = 0, optimizer_s = 0;
  bool exchange_bound = false;
  double mfu = 0;  // causal, with what the layout computes, against the BF16 peak
  double tokens_per_s_per_device = 0;
};
// The layout with layers moved away from the stage that has the head and the MTP modules (with
// dualpipe and dualpipev also from the first one, which is on the same rank), so that ranks compute
// about equally long.
Layout with_balanced_layers(const PlanModel& model, const Cluster& cluster, const Layout& layout,
                            const PhaseSettings& settings);

StepEstimate estimate_step(const PlanModel& model, const Cluster& cluster, const Layout& layout,
                           const PhaseSettings& settings);

}  // namespace minke

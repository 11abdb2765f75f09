// Roofline durations of the phases of one micro-batch on every stage and rank, for a schedule to be
// simulated or for its closed form.
//
//   F    2 x matrix parameters x T / (peak x efficiency) + attention / (BF16 peak x efficiency)
//   BI   as F, attention (3 QK + 2 V) / (QK + V) times (scores are never kept), and what is
//        recomputed                                           W    the products of F once more
//   between products   bytes of norms, rotation, SwiGLU, sorting of rows, softmax and loss, and of
//                      what products read and write, / memory bandwidth, where efficiencies were
//                      measured of the products alone, on operands in the cache
//   dispatch, combine   bytes of T tokens / bandwidth: over both links, the slower counts
//                       (rows cross the inner link while others cross the outer one)
//
// Alone, a phase waits for its exchange; an overlapped pair takes the longer of the two, on the
// compute units that communication leaves (arXiv 2412.19437, section 3.2.1). Efficiencies are
// settings: measured (`minke bench`) or assumed.
#pragma once
#include <vector>

#include "plan/layout.h"
#include "plan/simulate.h"

namespace minke {

struct PhaseSettings {
  // Assumed. With them the overlapped pair of DeepSeek-V3's middle ranks takes the 0.14 s that
  // follow from the step parts of arXiv 2505.09343, table 4.
  double fp8_efficiency = 0.3;
  double bf16_efficiency = 0.6;
  double attention_efficiency = 0.5;
  double link_efficiency = 1;      // of the cluster's bandwidths, which are effective ones
  double memory_efficiency = 0.8;  // of optimiser steps
  // Measured on a machine; without them, products are as above and the work between them counts as
  // a part of those.
  double experts_efficiency = 0;    // of the BF16 peak; 0: as bf16_efficiency
  double gradients_efficiency = 0;  // of the BF16 peak, for W; 0: as bf16_efficiency
  bool elementwise = false;         // count what reads and writes memory between products, in FP32
};

// The assumed ones, where the cluster has no measured ones (Cluster::efficiency).
PhaseSettings phase_settings(const Cluster& cluster);

// Bytes of FP32 rows that a token's forward pass reads and writes between the products of a block,
// its feed-forward part left out.
double block_elementwise_bytes(const PlanModel& model);
// Bytes of FP32 rows that the products around attention read and write for a token.
double attention_operand_bytes(const PlanModel& model);

// Seconds of one micro-batch on one stage.
struct StagePhases {
  double forward = 0;         // computing only
  double backward_input = 0;  // computing only, recomputation included
  double weight = 0;
  double dispatch = 0, combine = 0;  // of the forward pass; the backward pass has the same again
  double message = 0;                // to the next stage
};

// Share of the compute units that communication leaves while it runs.
double compute_left(const Cluster& cluster);

// An operation of the schedule for the simulation, given the stages whose micro-batches go forward
// and backward. A pair hides its exchanges on the units left, unless that takes longer than one
// after the other.
OpTime op_time(OpKind kind, const StagePhases& forward, const StagePhases& backward, double left);
// Seconds of an operation when nobody is waited for.
double alone(const OpTime& time);

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

// Step by the closed form of the schedule (plan/bubble.h, corrected where that is known), with the
// mean of the two stages of a rank, and the slowest rank. Equal stages, instantaneous messages;
// outside of the formula's region an estimate.
struct StepEstimate {
  double step_s = 0;
  double pipeline_s = 0, bubble_s = 0, gradients_s = 0, optimizer_s = 0;
  bool exchange_bound = false;
  double mfu = 0;  // causal, without recomputation and MTP, of the BF16 peak
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

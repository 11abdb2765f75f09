// Bytes on every pipeline rank of a training run.
//
//   weights       experts 1 (FP8) or 2, everything else 2 (BF16)        per parameter
//   gradients     4 (FP32)
//   optimiser     8 / replicas: FP32 master and two BF16 moments, ZeRO-1; experts have data /
//   expert
//                 replicas, everything else data, and twice as many when the mirrored copy of a
//                 stage (dualpipe) shares them
//   activations   bytes of a token and layer x tokens of a micro-batch x micro-batches in flight:
//                 1F1B P - s on stage s, ZB1P P, dualpipe and dualpipev S - s of S stages, together
//                 PP + 1 on every rank (arXiv 2412.19437, table 2)
//   host          exponential moving average of the weights, FP32, as sharded as the master weights
//
// Stated by the report: which values are recomputed, FP8 and E5M6 for kept activations, FP32 master
// and gradients, BF16 moments, the average on the host. Assumed: everything about sizes of buffers,
// and that every kept value is stored once.
#pragma once
#include <string>
#include <vector>

#include "plan/layout.h"

namespace minke {

struct MemorySettings {
  double expert_weight_bytes = 0;  // 0: 1 with FP8, else 2
  double other_weight_bytes = 2;
  double gradient_bytes = 4;
  double optimizer_bytes = 8;
  double average_bytes = 4;
  bool mirror_shares_optimizer = true;
  double usable_share = 0.95;  // of a device's memory; the rest: driver, library, fragments
};

struct ActivationPart {
  std::string name;
  double bytes = 0;  // of one token and layer
};
// What one layer keeps of each token for its backward pass.
std::vector<ActivationPart> activation_parts(const PlanModel& model, bool is_moe,
                                             Recompute recompute, bool fp8);
double activation_bytes(const PlanModel& model, bool is_moe, Recompute recompute, bool fp8);

// Micro-batches whose activations stage s holds at most.
Index micro_batches_in_flight(const Layout& layout, Index stage);

struct RankMemory {
  Index rank = 0;
  std::vector<Index> stages;
  std::vector<Index> layers;  // of each of these stages, MTP modules not counted
  double other_params = 0;    // outside routed experts
  double expert_params = 0;   // of the experts on this device
  double weights = 0, gradients = 0, optimizer = 0, activations = 0, buffers = 0;
  double host_average = 0;  // not on the device
  double states_bytes() const { return weights + gradients + optimizer; }
  double device_bytes() const { return states_bytes() + activations + buffers; }
};

// One row per pipeline rank. The layout must have no structure_problem.
std::vector<RankMemory> rank_memory(const PlanModel& model, const Layout& layout,
                                    const MemorySettings& settings);

RankMemory largest_rank(const std::vector<RankMemory>& ranks);

}  // namespace minke

// How fast one device generates, from its measured efficiencies.
//
//   decode    seconds of a step = bytes touched / (bandwidth x efficiency)
//             touched: weights outside of routed experts, E (1 - (1 - K/E)^B) experts a layer, and
//             the cached rows of B sequences
//   prefill   the forward pass of all tokens, the head of the last one only
#pragma once
#include "plan/phase_times.h"

namespace minke {

struct DecodeLoad {
  double sequences = 1;  // B
  double context = 0;    // cached tokens of each
  double weight_bits = 16;
  double cache_bits = 16;
};
// Bytes read in one step.
double decode_bytes(const PlanModel& model, const DecodeLoad& load);

// Experts of a layer that B tokens choose when every choice is equally likely.
double distinct_experts(const PlanModel& model, double tokens);

// `efficiency`: of the memory bandwidth that weights read for few rows reach.
double decode_tokens_per_s(const PlanModel& model, const Cluster& cluster, const DecodeLoad& load,
                           double efficiency);

double prefill_tokens_per_s(const PlanModel& model, const Cluster& cluster, Index tokens,
                            const PhaseSettings& settings);

}  // namespace minke

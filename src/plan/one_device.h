// How fast one device generates, from its measured efficiencies (Cluster::efficiency).
//
//   decode    seconds of a step = bytes touched / (bandwidth x efficiency)
//             touched: weights outside of routed experts, E (1 - (1 - K/E)^B) experts a layer, and
//             the cached rows of B sequences
//   prefill   piece by piece: dense products FLOP / (peak x efficiency), attention over all rows so
//             far, what moves between products by its bytes, and of each MoE layer
//             bytes of the touched experts / (bandwidth x e) + FLOP / (peak x e');
//             the rows of earlier pieces are expanded again; the head runs for the last row only
//
// Embedding, head, gates and norms are never FP8.
#pragma once
#include "plan/phase_times.h"

namespace minke {

struct WeightBits {
  double products = 16;  // of the matrices that FP8 checkpoints hold in FP8
  double others = 16;    // embedding, head, gates, norms
};

struct DecodeLoad {
  double sequences = 1;  // B
  double context = 0;    // cached tokens of each
  WeightBits weights = {};
  double cache_bits = 16;
};
// Bytes read in one step.
double decode_bytes(const PlanModel& model, const DecodeLoad& load);

// Experts of a layer that B tokens choose when every choice is equally likely.
double distinct_experts(const PlanModel& model, double tokens);

// `efficiency`: of the memory bandwidth that weights read for few rows reach.
double decode_tokens_per_s(const PlanModel& model, const Cluster& cluster, const DecodeLoad& load,
                           double efficiency);

struct PrefillLoad {
  Index tokens = 512;
  Index piece = 2048;  // tokens that go through the model together
  WeightBits weights = {};
};
// Shares of the peaks; `moe_weights` 0: experts as other products.
struct PrefillEfficiency {
  double products = 1, attention = 1, memory = 1, few_rows = 1;
  double moe_weights = 0, moe_products = 1;
};

// What `efficiency` measured, for weights of these bits; 1 where it measured nothing.
double decode_efficiency(const Efficiency& efficiency, const WeightBits& weights);
PrefillEfficiency prefill_efficiency(const Efficiency& efficiency, const WeightBits& weights);

double prefill_seconds(const PlanModel& model, const Cluster& cluster, const PrefillLoad& load,
                       const PrefillEfficiency& efficiency);

}  // namespace minke

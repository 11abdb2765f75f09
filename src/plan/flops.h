// Floating-point operations of a token.
//
//   forward = 2 matmul_params + layers 2 H (QK + V) ctx        train = 3 forward
//
// matmul_params: activated parameters without input embedding, norms and biases. ctx is the mean
// number of keys that a token sees: (s + 1) / 2 causal, s for the full square. No recomputation.
// This is the convention of arXiv 2505.09343, table 2 (V3 at 4096, causal: 250 GFLOP).
#pragma once
#include <cstdint>

#include "plan/parameter_table.h"

namespace minke {

enum class Mask : std::uint8_t { Causal, Full };

struct FlopsOptions {
  Index sequence = 4096;  // tokens s
  Mask mask = Mask::Causal;
  bool mtp = false;  // with the model's MTP modules, each with the head once more
};

struct TokenFlops {
  Index matmul_params = 0;
  double forward_matmul = 0;
  double forward_attention = 0;
  double forward() const { return forward_matmul + forward_attention; }
  double train() const { return 3 * forward(); }
};

TokenFlops flops_per_token(const PlanModel& model, const FlopsOptions& options);

// Mean number of keys of a token.
double mean_keys(Index sequence, Mask mask);

// Matrix parameters that a token meets in one layer.
Index layer_matmul_params(const PlanModel& model, const ParameterTable& table, bool is_moe);

// 2 H (QK + V) keys: scores and weighted values of one layer.
double layer_attention_flops(const PlanModel& model, double keys);

}  // namespace minke

// The work of a benchmark model. Weights are random.
#pragma once
#include "model/benchmark_models.h"

namespace minke::bench {

// Forward of a prompt: two for each active parameter without the head and each token, and causal
// attention (token t sees t + 1 keys).
double prefill_flop(const ModelConfig& config, Index tokens);

}  // namespace minke::bench

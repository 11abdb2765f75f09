// The work of a benchmark model. Weights are random.
#pragma once
#include "model/benchmark_models.h"

namespace minke::bench {

// Multiply-adds count two. Forward and backward of one token in a sequence of `length`: six for
// each active parameter (the head counts, of the embedding one row), and attention over the whole
// square of the sequence, as is usual although a causal pass does half of it.
double training_flop_per_token(const ModelConfig& config, Index length);

// Forward of a prompt: two for each active parameter without the head and each token, and causal
// attention (token t sees t + 1 keys).
double prefill_flop(const ModelConfig& config, Index tokens);

}  // namespace minke::bench

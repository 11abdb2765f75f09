// Memory of a training run, by kind.
#pragma once
#include "train/recipe.h"

namespace minke {

// In bytes: weights and states exact, activations of a micro-batch estimated.
struct TrainingMemory {
  double masters = 0, gradients = 0, moments = 0, products = 0, ema = 0, activations = 0;
  double total() const { return masters + gradients + moments + products + ema + activations; }
};
TrainingMemory training_memory(const Recipe& recipe, const ModelConfig& config);
// ConfigError when that is more than the machine has, swap included.
void check_memory(const Recipe& recipe, const ModelConfig& config);

// Bytes of a token's activations, in all layers, that are not kept between F and B when they are
// computed again there (the report, 3.2.3), FP32.
struct RecomputeSavings {
  double rmsnorm = 0;  // outputs of both norms of a block and of those of the latents
  double mla_up = 0;   // queries, keys and values of all heads
  double swiglu = 0;   // its output in dense layers and experts
};
RecomputeSavings recompute_savings(const ModelConfig& config);

}  // namespace minke

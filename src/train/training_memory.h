// Memory of a training run, by kind.
#pragma once
#include "train/training_layout.h"

namespace minke {

// In bytes. States are exact, `products` but for routers and `eh_proj`; `activations` are what a
// micro-batch keeps for its backward pass, within some percent, and its logits.
struct TrainingMemory {
  double masters = 0, gradients = 0, moments = 0, products = 0, ema = 0, activations = 0;
  double total() const { return masters + gradients + moments + products + ema + activations; }
};
// Of the rank with the most; `config` is of the whole model.
TrainingMemory training_memory(const Recipe& recipe, const ModelConfig& config,
                               const TrainingLayout& layout = {});
// ConfigError when that is more than the machine has, swap included.
void check_memory(const Recipe& recipe, const ModelConfig& config,
                  const TrainingLayout& layout = {});

// Bytes that a token keeps in all layers for the backward pass, in the recipe's compute and with
// its recomputation; and what each setting of recompute saves (or would) of the bytes without it
// (the report, 3.2.3).
double saved_bytes_per_token(const Recipe& recipe, const ModelConfig& config);
struct RecomputeSavings {
  double rmsnorm = 0, mla_up = 0, swiglu = 0;  // bytes of a token
};
RecomputeSavings recompute_savings(const Recipe& recipe, const ModelConfig& config);

}  // namespace minke

// How fast this machine trains, measured within seconds.
#pragma once
#include <string>

#include "model/weights.h"

namespace minke {

// Multiply-adds count two. Forward and backward of one token in a sequence of `length`: six for
// each active parameter (the head counts, of the embedding one row), and attention over the whole
// square of the sequence, as is usual although a causal pass does half of it. MTP modules are left
// out, as in the report's numbers.
double training_flop_per_token(const ModelConfig& config, Index length);

struct TrainingSpeed {
  std::string measured_on;  // what was run
  double token_s = 0;       // gradients of one token
  double update_s = 0;      // clipping, AdamW, packing: once a step
  double hours(double tokens, double steps) const {
    return (tokens * token_s + steps * update_s) / 3600;
  }
};

// Steps of random tokens: on the model itself when it has at most 64M parameters, else on the
// benchmark model "mini", scaled by operations (gradients) and by parameters (updates).
TrainingSpeed measure_training_speed(const ModelConfig& config, Index length, Compute compute);

}  // namespace minke

// A model of any size with random weights, made in the form that inference reads: nothing larger
// than one matrix is ever held besides it.
#pragma once
#include "model/weights.h"

namespace minke::bench {

struct RandomModel {
  Compute compute = Compute::Bf16;
  // E4m3 (compute bf16, fp8), Bf16 or Int4 in groups of 32 (bf16), or F32 (fp32)
  WeightForm linear = WeightForm::E4m3;
  bool absorbed = true;  // kv_b_proj per head, for decoding
  bool expanded = true;  // and whole, for prompts
  bool modules = false;  // MTP modules, as many as the configuration says
};

// Matrices are normal with variance 1 / inputs, so that values keep their size from layer to layer
// and the gate spreads over all experts; norms are 1, biases 0.
Model random_model(ModelConfig config, const RandomModel& options);

}  // namespace minke::bench

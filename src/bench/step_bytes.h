// The bytes that one decode step must touch: what its time is compared with.
#pragma once
#include <span>

#include "model/cached_forward.h"

namespace minke::bench {

struct MoeBytes {
  double weights = 0;
  Index experts = 0;  // distinct ones
};
// Of one MoE layer and the choices [T, K] of its tokens: the gate, the shared experts, and each
// routed expert that was chosen, once.
MoeBytes moe_bytes(const MoeWeights& w, const Tensor& indices);

struct StepBytes {
  double weights = 0;  // each once, however many sequences read it
  double cache = 0;    // latent rows, the new ones included
  Index experts = 0;   // distinct ones, summed over the layers
  double all() const { return weights + cache; }
};

// Bytes of weights in their packed form: attention's (kv_b_proj as the absorbed form reads it),
// dense layers, gates, shared experts, the routed experts that some sequence chose, norms, the
// head, and one embedding row for each sequence. `trace` is that of the step, `caches` are as they
// stand after it.
StepBytes step_bytes(const Model& model, std::span<const LatentCache* const> caches,
                     const Trace& trace);

}  // namespace minke::bench

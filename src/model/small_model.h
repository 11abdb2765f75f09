// Tests only: a small model with every feature (compressed queries, groups, shared experts, MTP),
// with weights that are neither tiny nor regular.
#pragma once
#include <cmath>

#include "base/random.h"
#include "model/weights.h"

namespace minke {

inline ModelConfig small_config(Index mtp = 1) {
  ModelConfig c;
  c.vocab_size = 61;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.moe_intermediate_size = 12;
  c.num_hidden_layers = 3;
  c.num_nextn_predict_layers = mtp;
  c.num_attention_heads = 3;
  c.q_lora_rank = 20;
  c.kv_lora_rank = 16;
  c.qk_nope_head_dim = 10;
  c.qk_rope_head_dim = 6;
  c.v_head_dim = 9;
  c.n_routed_experts = 8;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 3;
  c.n_group = 4;
  c.topk_group = 2;
  c.first_k_dense_replace = 1;
  c.routed_scaling_factor = 2.5;
  c.initializer_range = 0.3;
  c.max_position_embeddings = 256;
  c.check("small_config");
  return c;
}

inline ModelParameters<Tensor> small_parameters(const ModelConfig& c, std::uint64_t seed = 7) {
  ModelParameters<Tensor> p = initial_parameters(c, seed);
  Random random(seed + 1);
  visit_parameters(c, p, [&](const ParameterSpec& spec, Tensor& t) {
    if (spec.role != Role::Norm && spec.role != Role::Bias) return;
    for (Index i = 0; i < t.size(); ++i) t.flat()(i) += static_cast<float>(0.1 * random.normal());
  });
  return p;
}

inline Tensor random_tensor(Shape shape, std::uint64_t seed, double scale = 1) {
  Tensor t = Tensor::zeros(std::move(shape));
  Random random(seed);
  for (Index i = 0; i < t.size(); ++i) t.flat()(i) = static_cast<float>(scale * random.normal());
  return t;
}

// The cosine between two gradients of a matrix.
inline double cosine(const Tensor& a, const Tensor& b) {
  double dot = 0, aa = 0, bb = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.flat()(i), y = b.flat()(i);
    dot += x * y, aa += x * x, bb += y * y;
  }
  return dot / std::sqrt(aa * bb + 1e-300);
}

inline Tensor random_tokens(Index rows, Index columns, Index vocabulary, std::uint64_t seed) {
  Tensor t(DType::I32, {rows, columns});
  Random random(seed);
  for (Index i = 0; i < t.size(); ++i)
    static_cast<std::int32_t*>(t.raw())[i] =
        static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return t;
}

}  // namespace minke

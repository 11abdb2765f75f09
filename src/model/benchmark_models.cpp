#include "model/benchmark_models.h"

#include <fmt/format.h>

#include "base/error.h"

namespace minke {
namespace {

ModelConfig mini() {
  ModelConfig c;
  c.vocab_size = 8192;
  c.hidden_size = 512;
  c.intermediate_size = 1408;
  c.moe_intermediate_size = 256;
  c.num_hidden_layers = 8;
  c.num_attention_heads = 8;
  c.q_lora_rank = 256;
  c.kv_lora_rank = 128;
  c.qk_nope_head_dim = 64;
  c.qk_rope_head_dim = 32;
  c.v_head_dim = 64;
  c.n_routed_experts = 32;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 4;
  c.first_k_dense_replace = 1;
  c.routed_scaling_factor = 2.5;
  c.max_position_embeddings = 4096;
  return c;
}

ModelConfig moonlight_9l() {
  ModelConfig c;
  c.vocab_size = 32000;
  c.hidden_size = 2048;
  c.intermediate_size = 11264;
  c.moe_intermediate_size = 1408;
  c.num_hidden_layers = 9;
  c.num_attention_heads = 16;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.n_routed_experts = 64;
  c.n_shared_experts = 2;
  c.num_experts_per_tok = 6;
  c.first_k_dense_replace = 1;
  c.routed_scaling_factor = 2.446;
  c.max_position_embeddings = 8192;
  return c;
}

ModelConfig v3_slice() {
  ModelConfig c;
  c.vocab_size = 32000;
  c.hidden_size = 7168;
  c.intermediate_size = 18432;
  c.moe_intermediate_size = 2048;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.n_routed_experts = 256;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 8;
  c.n_group = 8;
  c.topk_group = 4;
  c.first_k_dense_replace = 1;
  c.routed_scaling_factor = 2.5;
  c.max_position_embeddings = 4096;
  return c;
}

}  // namespace

std::optional<ModelConfig> find_benchmark_model(std::string_view name) {
  if (name == "mini") return mini();
  if (name == "moonlight-9l") return moonlight_9l();
  if (name == "v3-slice") return v3_slice();
  return std::nullopt;
}

ModelConfig benchmark_model(std::string_view name) {
  if (auto config = find_benchmark_model(name)) return *config;
  throw UsageError(fmt::format(
      "there is no benchmark model '{}'; expected mini, moonlight-9l or v3-slice", name));
}

}  // namespace minke

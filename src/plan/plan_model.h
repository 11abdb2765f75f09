// The shape of a model as far as planning needs it: MLA with experts, and dense models with grouped
// queries to compare with. Fields carry the published config.json keys, letters are those of
// docs/notation.md.
//
// ModelConfig (model/config.h) describes what minke can run and refuses everything else; a plan may
// be made for other models too, so it has its own description.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"

namespace minke {

enum class AttentionKind : std::uint8_t {
  Latent,   // MLA: one latent row of C + R elements a token serves all heads
  Grouped,  // MHA, GQA, MQA: num_key_value_heads keys and values a token
};

struct PlanModel {
  std::string name;
  std::string source;  // of the values below

  Index vocab_size = 0;
  Index hidden_size = 0;          // D
  Index num_hidden_layers = 0;    // L
  Index num_attention_heads = 0;  // H
  Index intermediate_size = 0;    // of the dense layers
  Index max_position_embeddings = 0;

  AttentionKind attention = AttentionKind::Latent;
  // Latent:
  std::optional<Index> q_lora_rank;  // Q; null: one q_proj
  Index kv_lora_rank = 0;            // C
  Index qk_nope_head_dim = 0;        // N
  Index qk_rope_head_dim = 0;        // R
  Index v_head_dim = 0;              // V
  // Grouped:
  Index num_key_value_heads = 0;
  Index head_dim = 0;
  bool qkv_bias = false;

  Index n_routed_experts = 0;  // E; 0: every layer is dense
  Index n_shared_experts = 0;
  Index num_experts_per_tok = 0;    // K
  Index moe_intermediate_size = 0;  // F
  Index first_k_dense_replace = 0;
  Index n_group = 1, topk_group = 1;     // node-limited routing: groups, groups a token may use
  bool e_score_correction_bias = false;  // of the gate
  Index num_nextn_predict_layers = 0;    // MTP modules

  bool has_experts() const { return n_routed_experts > 0; }
  bool is_moe(Index layer) const { return has_experts() && layer >= first_k_dense_replace; }
  Index n_dense_layers() const;
  Index n_moe_layers() const { return num_hidden_layers - n_dense_layers(); }
  // Sizes of one head in the products of attention: queries and keys, values.
  Index qk_size() const;
  Index value_size() const;
};

// Names that plan_model_preset knows.
const std::vector<std::string>& plan_model_names();

// UsageError naming the nearest known name.
PlanModel plan_model_preset(const std::string& name);

PlanModel plan_model_of(const ModelConfig& config, const std::string& name);

// config.json of deepseek_v3, deepseek_v2, llama, mistral or qwen2 in `directory`. ConfigError,
// FormatError or IoError naming file and key.
PlanModel plan_model_from_directory(const std::string& directory);

// A directory when there is one of that name, else a preset.
PlanModel plan_model(const std::string& name_or_directory);

}  // namespace minke

// `config.json` of a `deepseek_v3` model. Fields carry the published keys.
//
// Read in the older and the newer spelling (`torch_dtype` / `dtype`, `rope_scaling` with
// `rope_theta` / `rope_parameters`, `type` / `rope_type`); written back in the spelling that was
// read, unknown keys kept. What minke does not implement is refused by name.
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/rope.h"
#include "ops/route.h"

namespace minke {

struct Fp8Quantization {      // `quantization_config`
  Index block = 128;          // both entries of `weight_block_size`
  bool power_of_two = false;  // `scale_fmt` "ue8m0"
};

struct Int4Quantization {  // compressed-tensors, "pack-quantized"
  Index group = 32;
};

struct ExpertRange {  // [first, last) of the routed experts of a layer
  Index first = 0, last = 0;
  Index size() const { return last - first; }
  bool holds(Index expert) const { return first <= expert && expert < last; }
  bool operator==(const ExpertRange&) const = default;
};

// Layers [first, last), with the embedding before them on the first stage of a pipeline, and on the
// last one what is behind them: final norm, output head, MTP modules. Modules read the embedding as
// well, so the last stage has a copy of it.
struct StageRange {
  Index first = 0, last = 0;
  bool embedding = false;
  bool output = false;

  Index n_layers() const { return last - first; }
  bool holds_layer(Index layer) const { return first <= layer && layer < last; }
  bool operator==(const StageRange&) const = default;
};

struct ModelConfig {
  Index vocab_size = 0;
  Index hidden_size = 0;               // D
  Index intermediate_size = 0;         // inner width of the dense layers
  Index moe_intermediate_size = 0;     // F
  Index num_hidden_layers = 0;         // L
  Index num_nextn_predict_layers = 0;  // MTP modules, at layer indices L, L + 1, ...
  Index num_attention_heads = 0;       // H
  std::optional<Index> q_lora_rank;    // Q; null: one q_proj
  Index kv_lora_rank = 0;              // C
  Index qk_nope_head_dim = 0;          // N
  Index qk_rope_head_dim = 0;          // R
  Index v_head_dim = 0;                // V
  Index n_routed_experts = 0;          // E; 0: every layer is dense
  Index n_shared_experts = 0;
  Index num_experts_per_tok = 0;  // K
  Index n_group = 1, topk_group = 1;
  Index first_k_dense_replace = 0;
  Index moe_layer_freq = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  double aux_loss_alpha = 1e-4;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  std::optional<YarnScaling> rope_scaling;
  Index max_position_embeddings = 0;
  double initializer_range = 0.02;
  std::optional<Index> bos_token_id, pad_token_id;
  std::vector<Index> eos_token_ids;  // a number or a list in the file
  std::string torch_dtype = "bfloat16";
  std::optional<Fp8Quantization> quantization;
  std::optional<Int4Quantization> int4;  // at most one of the two
  // No key of the file: the routed experts that are held here when ranks share those of a layer;
  // none: all. Every walk over the parameters meets these alone, with their published names.
  std::optional<ExpertRange> held_experts;
  // Likewise the pipeline stages that are held here, in their order; none: the whole model.
  std::vector<StageRange> held_stages;

  // ConfigError (or IoError, FormatError) naming the file and the key.
  static ModelConfig load(const std::filesystem::path& directory);
  // `where` is named in errors.
  static ModelConfig from_json(const nlohmann::ordered_json& json, const std::string& where);
  // The keys that were read with today's values, and every published key when none were read.
  nlohmann::ordered_json to_json() const;
  void save(const std::filesystem::path& directory) const;
  // ConfigError for a value that is out of range or contradicts another one.
  void check(const std::string& where) const;

  bool is_moe(Index layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  Index qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  ExpertRange local_experts() const {
    return held_experts.value_or(ExpertRange{0, n_routed_experts});
  }
  std::vector<StageRange> local_stages() const;
  bool holds_all() const { return !held_experts && held_stages.empty(); }
  // Of the whole model, whoever holds it.
  ModelConfig whole() const;
  // Whether a held stage has that layer (index in the published names, MTP modules included).
  bool holds_layer(Index layer) const;
  Index shared_width() const { return n_shared_experts * moe_intermediate_size; }
  Index cache_row() const { return kv_lora_rank + qk_rope_head_dim; }  // elements a token and layer
  double softmax_scale() const;
  RouteShape route_shape() const;
  AttentionShape expanded_attention() const;
  AttentionShape absorbed_attention() const;

 private:
  std::shared_ptr<const nlohmann::ordered_json> as_read_;
};

// The latent norms (`q_a_layernorm`, `kv_a_layernorm`) keep this whatever rms_norm_eps says, as in
// the published code.
inline constexpr double kLatentNormEps = 1e-6;

}  // namespace minke

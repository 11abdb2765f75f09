#include "plan/plan_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/options.h"
#include "model/benchmark_models.h"

namespace minke {
namespace {

PlanModel latent_model(const char* name, const char* source) {
  PlanModel m;
  m.name = name;
  m.source = source;
  m.attention = AttentionKind::Latent;
  m.kv_lora_rank = 512;
  m.qk_nope_head_dim = 128;
  m.qk_rope_head_dim = 64;
  m.v_head_dim = 128;
  return m;
}

PlanModel deepseek_v3() {
  PlanModel m = latent_model(
      "deepseek-v3", "config.json of deepseek-ai/DeepSeek-V3; arXiv 2412.19437, section 4.2");
  m.vocab_size = 129280;
  m.hidden_size = 7168;
  m.num_hidden_layers = 61;
  m.num_attention_heads = 128;
  m.intermediate_size = 18432;
  m.max_position_embeddings = 163840;
  m.q_lora_rank = 1536;
  m.n_routed_experts = 256;
  m.n_shared_experts = 1;
  m.num_experts_per_tok = 8;
  m.moe_intermediate_size = 2048;
  m.first_k_dense_replace = 3;
  m.n_group = 8;
  m.topk_group = 4;
  m.e_score_correction_bias = true;
  m.num_nextn_predict_layers = 1;
  return m;
}

PlanModel deepseek_v2() {
  PlanModel m = latent_model("deepseek-v2", "config.json of deepseek-ai/DeepSeek-V2");
  m.vocab_size = 102400;
  m.hidden_size = 5120;
  m.num_hidden_layers = 60;
  m.num_attention_heads = 128;
  m.intermediate_size = 12288;
  m.max_position_embeddings = 163840;
  m.q_lora_rank = 1536;
  m.n_routed_experts = 160;
  m.n_shared_experts = 2;
  m.num_experts_per_tok = 6;
  m.moe_intermediate_size = 1536;
  m.first_k_dense_replace = 1;
  m.n_group = 8;
  m.topk_group = 3;
  return m;
}

PlanModel deepseek_v2_lite() {
  PlanModel m = latent_model("deepseek-v2-lite", "config.json of deepseek-ai/DeepSeek-V2-Lite");
  m.vocab_size = 102400;
  m.hidden_size = 2048;
  m.num_hidden_layers = 27;
  m.num_attention_heads = 16;
  m.intermediate_size = 10944;
  m.max_position_embeddings = 163840;
  m.n_routed_experts = 64;
  m.n_shared_experts = 2;
  m.num_experts_per_tok = 6;
  m.moe_intermediate_size = 1408;
  m.first_k_dense_replace = 1;
  return m;
}

PlanModel moonlight_16b() {
  PlanModel m = latent_model("moonlight-16b", "config.json of moonshotai/Moonlight-16B-A3B");
  m.vocab_size = 163840;
  m.hidden_size = 2048;
  m.num_hidden_layers = 27;
  m.num_attention_heads = 16;
  m.intermediate_size = 11264;
  m.max_position_embeddings = 8192;
  m.n_routed_experts = 64;
  m.n_shared_experts = 2;
  m.num_experts_per_tok = 6;
  m.moe_intermediate_size = 1408;
  m.first_k_dense_replace = 1;
  m.e_score_correction_bias = true;
  return m;
}

struct DenseSizes {
  Index vocabulary, width, layers, heads, kv_heads, inner, positions;
};

PlanModel dense_model(const char* name, const char* source, const DenseSizes& s) {
  PlanModel m;
  m.name = name;
  m.source = source;
  m.attention = AttentionKind::Grouped;
  m.vocab_size = s.vocabulary;
  m.hidden_size = s.width;
  m.num_hidden_layers = s.layers;
  m.num_attention_heads = s.heads;
  m.num_key_value_heads = s.kv_heads;
  m.head_dim = s.width / s.heads;
  m.intermediate_size = s.inner;
  m.max_position_embeddings = s.positions;
  return m;
}

PlanModel llama_405b() {
  return dense_model("llama-3.1-405b",
                     "arXiv 2407.21783, table 3; config.json of meta-llama/Llama-3.1-405B",
                     {128256, 16384, 126, 128, 8, 53248, 131072});
}
PlanModel llama_70b() {
  return dense_model("llama-3.1-70b",
                     "arXiv 2407.21783, table 3; config.json of meta-llama/Llama-3.1-70B",
                     {128256, 8192, 80, 64, 8, 28672, 131072});
}
PlanModel qwen_72b() {
  PlanModel m = dense_model("qwen2.5-72b", "config.json of Qwen/Qwen2.5-72B",
                            {152064, 8192, 80, 64, 8, 29568, 131072});
  m.qkv_bias = true;
  return m;
}
PlanModel deepseek_67b() {
  return dense_model("deepseek-67b",
                     "arXiv 2401.02954, table 2; config.json of deepseek-ai/deepseek-llm-67b-base",
                     {102400, 8192, 95, 64, 8, 22016, 4096});
}

PlanModel benchmark(const char* name) {
  PlanModel m = plan_model_of(benchmark_model(name), name);
  m.source = "a benchmark's model (model/benchmark_models.h)";
  return m;
}

struct Preset {
  const char* name;
  PlanModel (*make)();
};
constexpr Preset kPresets[] = {{"deepseek-v3", deepseek_v3},
                               {"deepseek-v2", deepseek_v2},
                               {"deepseek-v2-lite", deepseek_v2_lite},
                               {"moonlight-16b", moonlight_16b},
                               {"llama-3.1-405b", llama_405b},
                               {"llama-3.1-70b", llama_70b},
                               {"qwen2.5-72b", qwen_72b},
                               {"deepseek-67b", deepseek_67b},
                               {"mini", [] { return benchmark("mini"); }},
                               {"moonlight-9l", [] { return benchmark("moonlight-9l"); }},
                               {"v3-slice", [] { return benchmark("v3-slice"); }}};

// Counts are 64-bit integers: refuses what could overflow them.
void refuse_absurd(const PlanModel& m, const std::string& where) {
  const auto real = [](Index n) { return static_cast<double>(n); };
  const double D = real(m.hidden_size), H = real(m.num_attention_heads);
  const double latents = real(m.q_lora_rank.value_or(0) + m.kv_lora_rank) + 1;
  const double attention = H * real(m.qk_size() + m.value_size()) * (D + latents) + latents * D;
  const double ffn =
      3 * D * real(m.intermediate_size) +
      3 * D * real(m.moe_intermediate_size) * real(m.n_routed_experts + m.n_shared_experts);
  const double estimate =
      2 * D * real(m.vocab_size) + 2 * D * D +
      real(m.num_hidden_layers + m.num_nextn_predict_layers) * (attention + ffn);
  if (!(estimate < 1e17))
    throw ConfigError(
        fmt::format("{}: {:.1e} parameters; a plan is made for at most 1e17", where, estimate));
}

}  // namespace

Index PlanModel::n_dense_layers() const {
  return has_experts() ? std::min(first_k_dense_replace, num_hidden_layers) : num_hidden_layers;
}
Index PlanModel::qk_size() const {
  return attention == AttentionKind::Latent ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
}
Index PlanModel::value_size() const {
  return attention == AttentionKind::Latent ? v_head_dim : head_dim;
}

const std::vector<std::string>& plan_model_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Preset& preset : kPresets) list.push_back(preset.name);
    return list;
  }();
  return names;
}

PlanModel plan_model_preset(const std::string& name) {
  for (const Preset& preset : kPresets)
    if (name == preset.name) return preset.make();
  const std::string near = nearest_name(name, plan_model_names());
  throw UsageError(fmt::format("--model {}: neither a directory nor a known model{}; known: {}",
                               name, near.empty() ? "" : "; did you mean '" + near + "'?",
                               fmt::join(plan_model_names(), ", ")));
}

PlanModel plan_model_of(const ModelConfig& c, const std::string& name) {
  PlanModel m;
  m.name = name;
  m.source = "config.json";
  m.vocab_size = c.vocab_size;
  m.hidden_size = c.hidden_size;
  m.num_hidden_layers = c.num_hidden_layers;
  m.num_attention_heads = c.num_attention_heads;
  m.intermediate_size = c.intermediate_size;
  m.max_position_embeddings = c.max_position_embeddings;
  m.q_lora_rank = c.q_lora_rank;
  m.kv_lora_rank = c.kv_lora_rank;
  m.qk_nope_head_dim = c.qk_nope_head_dim;
  m.qk_rope_head_dim = c.qk_rope_head_dim;
  m.v_head_dim = c.v_head_dim;
  m.n_routed_experts = c.n_routed_experts;
  m.n_shared_experts = c.n_shared_experts;
  m.num_experts_per_tok = c.num_experts_per_tok;
  m.moe_intermediate_size = c.moe_intermediate_size;
  m.first_k_dense_replace = c.first_k_dense_replace;
  m.n_group = c.n_group;
  m.topk_group = c.topk_group;
  m.e_score_correction_bias = c.n_routed_experts > 0;
  m.num_nextn_predict_layers = c.num_nextn_predict_layers;
  if (c.n_routed_experts > 0 && c.moe_layer_freq != 1)
    throw ConfigError(fmt::format("{}: moe_layer_freq = {} is not planned for; expected 1", name,
                                  c.moe_layer_freq));
  return m;
}

PlanModel plan_model(const std::string& name_or_directory) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(name_or_directory, ignored))
    return plan_model_preset(name_or_directory);
  PlanModel m = plan_model_from_directory(name_or_directory);
  refuse_absurd(m, name_or_directory + "/config.json");
  return m;
}

}  // namespace minke

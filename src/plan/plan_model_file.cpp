// config.json of the families that a plan can be made for.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "plan/plan_model.h"

namespace minke {
namespace {

using Json = nlohmann::json;

// Integers of one object, with the file and the key in every complaint.
struct Keys {
  const Json& json;
  std::string where;

  bool has(const char* key) const { return json.contains(key) && !json.at(key).is_null(); }
  Index count(const char* key, Index least = 1) const {
    if (!has(key))
      throw ConfigError(fmt::format("{}: {} is missing; expected an integer", where, key));
    const Json& v = json.at(key);
    const Index most = Index{1} << 31;
    if (!v.is_number_integer() || v.get<double>() < static_cast<double>(least) ||
        v.get<double>() > static_cast<double>(most))
      throw ConfigError(fmt::format("{}: {} is {}; expected an integer from {} to {}", where, key,
                                    v.dump().substr(0, 60), least, most));
    return v.get<Index>();
  }
  Index count_or(const char* key, Index fallback, Index least) const {
    return has(key) ? count(key, least) : fallback;
  }
  void not_tied() const {
    if (has("tie_word_embeddings") && json.at("tie_word_embeddings") == true)
      throw ConfigError(where +
                        ": tie_word_embeddings = true is not planned for; expected an output "
                        "head of its own");
  }
};

void read_sizes(const Keys& k, PlanModel& m) {
  m.vocab_size = k.count("vocab_size");
  m.hidden_size = k.count("hidden_size");
  m.num_hidden_layers = k.count("num_hidden_layers");
  m.num_attention_heads = k.count("num_attention_heads");
  m.intermediate_size = k.count("intermediate_size");
  m.max_position_embeddings = k.count("max_position_embeddings");
  k.not_tied();
}

PlanModel read_deepseek_v2(const Keys& k) {
  PlanModel m;
  read_sizes(k, m);
  if (k.has("q_lora_rank")) m.q_lora_rank = k.count("q_lora_rank");
  m.kv_lora_rank = k.count("kv_lora_rank");
  m.qk_nope_head_dim = k.count("qk_nope_head_dim");
  m.qk_rope_head_dim = k.count("qk_rope_head_dim");
  m.v_head_dim = k.count("v_head_dim");
  m.n_routed_experts = k.count_or("n_routed_experts", 0, 0);
  if (!m.has_experts()) return m;
  m.n_shared_experts = k.count_or("n_shared_experts", 0, 0);
  m.num_experts_per_tok = k.count("num_experts_per_tok");
  m.moe_intermediate_size = k.count("moe_intermediate_size");
  m.first_k_dense_replace = k.count_or("first_k_dense_replace", 0, 0);
  m.n_group = k.count_or("n_group", 1, 1);
  m.topk_group = k.count_or("topk_group", 1, 1);
  if (k.count_or("moe_layer_freq", 1, 1) != 1)
    throw ConfigError(k.where + ": moe_layer_freq is not 1, which is not planned for");
  if (m.num_experts_per_tok > m.n_routed_experts)
    throw ConfigError(fmt::format("{}: num_experts_per_tok is {}, but n_routed_experts is {}",
                                  k.where, m.num_experts_per_tok, m.n_routed_experts));
  if (m.n_routed_experts % m.n_group != 0 || m.topk_group > m.n_group)
    throw ConfigError(fmt::format(
        "{}: n_group {} and topk_group {} do not go with n_routed_experts {}; groups must divide "
        "the experts, and no more may be chosen than there are",
        k.where, m.n_group, m.topk_group, m.n_routed_experts));
  return m;
}

PlanModel read_grouped(const Keys& k, bool qkv_bias) {
  PlanModel m;
  m.attention = AttentionKind::Grouped;
  read_sizes(k, m);
  m.num_key_value_heads = k.count_or("num_key_value_heads", m.num_attention_heads, 1);
  if (!k.has("head_dim") && m.hidden_size % m.num_attention_heads != 0)
    throw ConfigError(fmt::format("{}: hidden_size {} is no multiple of num_attention_heads {}",
                                  k.where, m.hidden_size, m.num_attention_heads));
  m.head_dim = k.count_or("head_dim", m.hidden_size / m.num_attention_heads, 1);
  if (m.num_attention_heads % m.num_key_value_heads != 0)
    throw ConfigError(
        fmt::format("{}: num_attention_heads {} is no multiple of "
                    "num_key_value_heads {}",
                    k.where, m.num_attention_heads, m.num_key_value_heads));
  m.qkv_bias = qkv_bias;
  return m;
}

}  // namespace

PlanModel plan_model_from_directory(const std::string& directory) {
  const std::filesystem::path path = std::filesystem::path(directory) / "config.json";
  Json json;
  try {
    json = Json::parse(read_file(path, std::size_t{1} << 24));
  } catch (const Json::exception& e) {
    throw FormatError(fmt::format("{}: not valid JSON: {}", path.string(), e.what()));
  }
  if (!json.is_object())
    throw FormatError(path.string() + ": must hold one JSON object with the model's settings");
  const std::string type = json.contains("model_type") && json.at("model_type").is_string()
                               ? json.at("model_type").get<std::string>()
                               : "";
  std::filesystem::path named(directory);
  if (!named.has_filename()) named = named.parent_path();
  const std::string name = named.filename().string();
  const Keys keys{json, path.string()};
  PlanModel m;
  if (type == "deepseek_v3")
    return plan_model_of(ModelConfig::load(directory), name);
  else if (type == "deepseek_v2")
    m = read_deepseek_v2(keys);
  else if (type == "llama" || type == "mistral" || type == "qwen2")
    m = read_grouped(keys, type == "qwen2");
  else
    throw ConfigError(
        fmt::format("{}: model_type is '{}'; a plan can be made for deepseek_v3, "
                    "deepseek_v2, llama, mistral and qwen2",
                    path.string(), type.substr(0, 60)));
  m.name = name;
  m.source = "config.json";
  return m;
}

}  // namespace minke

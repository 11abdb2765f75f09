#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "model/stage_range.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLargestFile = std::size_t{16} << 20;
constexpr Index kLargest = Index{1} << 31;
constexpr Index kLargestLatent = 1 << 20;

// What a setting may be, in a file as in a struct that somebody filled.
enum class Presence { Required, Optional, RequiredByExperts, OptionalByExperts };
struct IntegerKey {
  const char* key;
  Index ModelConfig::*field;
  Presence presence;
  Index least, most;
};
struct NumberKey {
  const char* key;
  double ModelConfig::*field;
  double least, most;
};

constexpr IntegerKey kIntegers[] = {
    {"vocab_size", &ModelConfig::vocab_size, Presence::Required, 1, 1 << 24},
    {"hidden_size", &ModelConfig::hidden_size, Presence::Required, 1, 1 << 20},
    {"intermediate_size", &ModelConfig::intermediate_size, Presence::Required, 1, 1 << 22},
    {"num_hidden_layers", &ModelConfig::num_hidden_layers, Presence::Required, 1, 1 << 14},
    {"num_nextn_predict_layers", &ModelConfig::num_nextn_predict_layers, Presence::Optional, 0, 64},
    {"num_attention_heads", &ModelConfig::num_attention_heads, Presence::Required, 1, 1 << 14},
    {"kv_lora_rank", &ModelConfig::kv_lora_rank, Presence::Required, 1, kLargestLatent},
    {"qk_nope_head_dim", &ModelConfig::qk_nope_head_dim, Presence::Required, 1, 1 << 16},
    {"qk_rope_head_dim", &ModelConfig::qk_rope_head_dim, Presence::Required, 2, 1 << 16},
    {"v_head_dim", &ModelConfig::v_head_dim, Presence::Required, 1, 1 << 16},
    {"n_routed_experts", &ModelConfig::n_routed_experts, Presence::Optional, 0, 1 << 16},
    {"moe_intermediate_size", &ModelConfig::moe_intermediate_size, Presence::RequiredByExperts, 1,
     1 << 22},
    {"num_experts_per_tok", &ModelConfig::num_experts_per_tok, Presence::RequiredByExperts, 1,
     1 << 16},
    {"n_shared_experts", &ModelConfig::n_shared_experts, Presence::OptionalByExperts, 0, 1 << 16},
    {"n_group", &ModelConfig::n_group, Presence::OptionalByExperts, 1, 1 << 16},
    {"topk_group", &ModelConfig::topk_group, Presence::OptionalByExperts, 1, 1 << 16},
    {"first_k_dense_replace", &ModelConfig::first_k_dense_replace, Presence::Optional, 0, kLargest},
    {"moe_layer_freq", &ModelConfig::moe_layer_freq, Presence::Optional, 1, kLargest},
    {"max_position_embeddings", &ModelConfig::max_position_embeddings, Presence::Required, 1,
     kLargest},
};
constexpr NumberKey kNumbers[] = {
    {"routed_scaling_factor", &ModelConfig::routed_scaling_factor, 0, 1e6},
    {"aux_loss_alpha", &ModelConfig::aux_loss_alpha, 0, 1e6},
    {"rms_norm_eps", &ModelConfig::rms_norm_eps, 0, 1},
    {"rope_theta", &ModelConfig::rope_theta, 1, 1e15},
    {"initializer_range", &ModelConfig::initializer_range, 0, 10},
};
// The published model has 61 layers of 256 experts.
constexpr Index kMostExperts = 1 << 20;

bool of_experts(Presence presence) {
  return presence == Presence::RequiredByExperts || presence == Presence::OptionalByExperts;
}

// Reads keys of one object, naming the file and the key in every complaint.
class Reader {
 public:
  Reader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  const Json& at(const char* key) const { return json_.at(key); }

  Index integer(const char* key, Index least, Index most = kLargest) const {
    if (!json_.contains(key)) missing(key, "an integer");
    const Json& v = json_.at(key);
    if (!v.is_number_integer()) wrong(key, "an integer");
    if (v.is_number_unsigned() && v.get<std::uint64_t>() > static_cast<std::uint64_t>(most))
      wrong(key, fmt::format("an integer of at most {}", most));
    const Index i = v.get<Index>();
    if (i < least || i > most) wrong(key, fmt::format("an integer from {} to {}", least, most));
    return i;
  }
  double number(const char* key, double least, double most) const {
    if (!json_.contains(key)) missing(key, "a number");
    const Json& v = json_.at(key);
    if (!v.is_number()) wrong(key, "a number");
    const double d = v.get<double>();
    if (!(d >= least && d <= most)) wrong(key, fmt::format("a number from {} to {}", least, most));
    return d;
  }
  double number_or(const char* key, double fallback, double least, double most) const {
    return has(key) ? number(key, least, most) : fallback;
  }
  bool flag_or(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!json_.at(key).is_boolean()) wrong(key, "true or false");
    return json_.at(key).get<bool>();
  }
  std::string text_or(const char* key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    if (!json_.at(key).is_string()) wrong(key, "a string");
    return json_.at(key).get<std::string>();
  }
  // A setting of which one value is implemented.
  void only(const char* key, const Json& supported) const {
    if (has(key) && json_.at(key) != supported)
      throw ConfigError(fmt::format("{}: {} = {} is not implemented; minke supports {} only",
                                    where_, key, brief(json_.at(key)), supported.dump()));
  }
  [[noreturn]] void wrong(const char* key, const std::string& expected) const {
    throw ConfigError(fmt::format("{}: {} is {}; expected {}", where_, key, shown(key), expected));
  }
  std::string shown(const char* key) const {
    return json_.contains(key) ? brief(json_.at(key)) : "missing";
  }
  // Both spellings of one setting, which must not contradict each other.
  const char* one_of(const char* newer, const char* older) const {
    if (has(newer) && has(older) && json_.at(newer) != json_.at(older))
      throw ConfigError(fmt::format("{}: {} is {} but {} is {}; they mean the same, remove one",
                                    where_, newer, shown(newer), older, shown(older)));
    return has(newer) ? newer : older;
  }
  const Json& object(const char* key) const {
    if (!at(key).is_object()) wrong(key, "an object or null");
    return at(key);
  }
  const std::string& where() const { return where_; }
  std::string inside(const char* key) const { return where_ + ": " + key; }

 private:
  [[noreturn]] void missing(const char* key, const char* expected) const {
    throw ConfigError(fmt::format("{}: {} is missing; expected {}", where_, key, expected));
  }
  static std::string brief(const Json& v) {
    std::string text = v.dump(-1, ' ', false, Json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  }

  const Json& json_;
  std::string where_;
};

// The object that holds the rotary settings: `rope_scaling`, or `rope_parameters` where newer.
std::optional<YarnScaling> read_yarn(const Json& scaling, const std::string& where) {
  const Reader r(scaling, where);
  const std::string type = r.text_or(r.one_of("rope_type", "type"), "");
  if (type == "default" || (type.empty() && !r.has("factor"))) return std::nullopt;
  if (type != "yarn")
    throw ConfigError(
        fmt::format("{}: type \"{}\" is not implemented; minke supports \"yarn\"", where, type));
  YarnScaling y;
  y.factor = r.number("factor", 1, 1e6);
  y.beta_fast = r.number_or("beta_fast", 32, 1e-6, 1e6);
  y.beta_slow = r.number_or("beta_slow", 1, 1e-6, 1e6);
  if (y.beta_fast < y.beta_slow)
    throw ConfigError(fmt::format("{}: beta_fast is {} but beta_slow is {}; expected no less",
                                  where, y.beta_fast, y.beta_slow));
  y.mscale = r.number_or("mscale", 1, 0, 1e3);
  y.mscale_all_dim = r.number_or("mscale_all_dim", 0, 0, 1e3);
  y.original_length = r.integer("original_max_position_embeddings", 1);
  return y;
}

// One group of settings for all linears: 4 bits, symmetric, in groups of 32 or 128.
Int4Quantization read_int4(const Json& json, const std::string& where) {
  const Reader r(json, where);
  r.only("format", "pack-quantized");
  if (!r.has("config_groups") || !r.at("config_groups").is_object() ||
      r.at("config_groups").size() != 1)
    r.wrong("config_groups", "an object with one group");
  const auto only_group = r.at("config_groups").begin();
  const Reader group_reader(only_group.value(), where + ": " + only_group.key());
  if (!group_reader.has("weights")) group_reader.wrong("weights", "an object");
  const Reader weights(group_reader.object("weights"), group_reader.inside("weights"));
  if (weights.integer("num_bits", 1) != 4) weights.wrong("num_bits", "4");
  weights.only("type", "int");
  weights.only("strategy", "group");
  if (weights.has("symmetric") && weights.at("symmetric") != Json(true))
    weights.wrong("symmetric", "true");
  const Index group = weights.integer("group_size", 1);
  if (group != 32 && group != 128) weights.wrong("group_size", "32 or 128");
  return {group};
}

Fp8Quantization read_fp8(const Json& json, const std::string& where) {
  const Reader r(json, where);
  r.only("fmt", "e4m3");
  r.only("activation_scheme", "dynamic");
  Fp8Quantization q;
  if (r.has("weight_block_size") && r.at("weight_block_size") != Json::array({128, 128}))
    r.wrong("weight_block_size", "[128, 128]");
  r.only("scale_fmt", "ue8m0");
  q.power_of_two = r.has("scale_fmt");
  return q;
}

void read_quantization(const Json& json, const std::string& where, ModelConfig& c) {
  const std::string method = Reader(json, where).text_or("quant_method", "");
  if (method == "fp8")
    c.quantization = read_fp8(json, where);
  else if (method == "compressed-tensors")
    c.int4 = read_int4(json, where);
  else
    throw ConfigError(fmt::format(
        "{}: quant_method \"{}\" is not implemented; minke reads \"fp8\" with 128x128 blocks, "
        "\"compressed-tensors\" in the format pack-quantized, or weights that are not quantised",
        where, method));
}

bool same(const std::optional<YarnScaling>& a, const std::optional<YarnScaling>& b) {
  const auto values = [](const YarnScaling& y) {
    return std::tuple(y.factor, y.beta_fast, y.beta_slow, y.mscale, y.mscale_all_dim,
                      y.original_length);
  };
  return a && b ? values(*a) == values(*b) : !a && !b;
}

// Newer files hold theta and the scaling in one object, `rope_parameters`.
void read_rope(const Reader& r, ModelConfig& c) {
  if (r.has("rope_scaling"))
    c.rope_scaling = read_yarn(r.object("rope_scaling"), r.inside("rope_scaling"));
  if (!r.has("rope_parameters")) return;
  const Json& newer = r.object("rope_parameters");
  const std::string inside = r.inside("rope_parameters");
  const std::optional<YarnScaling> scaling = read_yarn(newer, inside);
  if (r.has("rope_scaling") && !same(scaling, c.rope_scaling))
    throw ConfigError(
        fmt::format("{}: rope_parameters and rope_scaling differ; they mean the "
                    "same, remove one",
                    r.where()));
  c.rope_scaling = scaling;
  const Reader n(newer, inside);
  const double theta = n.number_or("rope_theta", c.rope_theta, 1, 1e15);
  if (r.has("rope_theta") && theta != c.rope_theta)
    throw ConfigError(
        fmt::format("{}: rope_theta is {} but rope_parameters.rope_theta is {}; they "
                    "mean the same, remove one",
                    r.where(), r.shown("rope_theta"), n.shown("rope_theta")));
  c.rope_theta = theta;
}

void read_eos(const Reader& r, ModelConfig& c) {
  if (!r.has("eos_token_id")) return;
  const Json& v = r.at("eos_token_id");
  for (const Json& id : v.is_array() ? v : Json::array({v})) {
    if (!id.is_number_integer() || id.get<Index>() < 0 || id.get<Index>() >= c.vocab_size)
      r.wrong("eos_token_id", fmt::format("token ids from 0 to {}", c.vocab_size - 1));
    c.eos_token_ids.push_back(id.get<Index>());
  }
}

// Sets `key` where it stands, or where a fresh file would have it.
void put(Json& json, bool fresh, const char* key, const Json& value) {
  if (fresh || json.contains(key))
    if (!json.contains(key) || json[key] != value) json[key] = value;  // 10000 stays 10000
}

template <class T>
Json or_null(const std::optional<T>& v) {
  return v ? Json(*v) : Json(nullptr);
}

}  // namespace

ModelConfig ModelConfig::load(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  std::error_code error;
  if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found)
    throw IoError(
        fmt::format("{} does not exist; a model directory holds config.json", path.string()));
  return from_json(read_ordered_json(path, kLargestFile), path.string());
}

ModelConfig ModelConfig::from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) throw ConfigError(where + ": expected a JSON object");
  const Reader r(json, where);
  if (!r.has("model_type") || r.at("model_type") != "deepseek_v3")
    throw ConfigError(fmt::format("{}: model_type is {}; minke reads \"deepseek_v3\"", where,
                                  r.shown("model_type")));
  r.only("scoring_func", "sigmoid");
  r.only("topk_method", "noaux_tc");
  r.only("hidden_act", "silu");
  r.only("attention_bias", false);
  r.only("tie_word_embeddings", false);
  r.only("rope_interleave", true);
  r.only("mlp_bias", false);

  ModelConfig c;
  for (const IntegerKey& k : kIntegers) {
    if (of_experts(k.presence) && c.n_routed_experts == 0) continue;
    const bool required =
        k.presence == Presence::Required || k.presence == Presence::RequiredByExperts;
    if (required || r.has(k.key)) c.*k.field = r.integer(k.key, k.least, k.most);
  }
  for (const NumberKey& k : kNumbers) c.*k.field = r.number_or(k.key, c.*k.field, k.least, k.most);
  if (r.has("num_key_value_heads") && r.integer("num_key_value_heads", 1) != c.num_attention_heads)
    throw ConfigError(
        fmt::format("{}: num_key_value_heads is {} but num_attention_heads is {}; "
                    "latent attention has as many of both",
                    where, r.integer("num_key_value_heads", 1), c.num_attention_heads));
  if (r.has("q_lora_rank")) c.q_lora_rank = r.integer("q_lora_rank", 1, kLargestLatent);
  if (c.n_routed_experts > 0) c.norm_topk_prob = r.flag_or("norm_topk_prob", true);
  c.torch_dtype = r.text_or(r.has("dtype") ? "dtype" : "torch_dtype", "bfloat16");
  if (r.has("bos_token_id")) c.bos_token_id = r.integer("bos_token_id", 0);
  if (r.has("pad_token_id")) c.pad_token_id = r.integer("pad_token_id", 0);
  read_eos(r, c);

  read_rope(r, c);
  if (r.has("quantization_config"))
    read_quantization(r.object("quantization_config"), r.inside("quantization_config"), c);
  c.as_read_ = std::make_shared<const Json>(json);
  c.check(where);
  return c;
}

void ModelConfig::check(const std::string& where) const {
  const auto refuse = [&](const std::string& text) { throw ConfigError(where + ": " + text); };
  for (const IntegerKey& k : kIntegers) {
    if (of_experts(k.presence) && n_routed_experts == 0) continue;
    if (this->*k.field < k.least || this->*k.field > k.most)
      refuse(fmt::format("{} is {}; expected an integer from {} to {}", k.key, this->*k.field,
                         k.least, k.most));
  }
  for (const NumberKey& k : kNumbers)
    if (!(this->*k.field >= k.least && this->*k.field <= k.most))
      refuse(fmt::format("{} is {}; expected a number from {} to {}", k.key, this->*k.field,
                         k.least, k.most));
  if (q_lora_rank && (*q_lora_rank < 1 || *q_lora_rank > kLargestLatent))
    refuse(fmt::format("q_lora_rank is {}; expected null or an integer from 1 to {}", *q_lora_rank,
                       kLargestLatent));
  if (qk_rope_head_dim % 2)
    refuse(
        fmt::format("qk_rope_head_dim is {}; rotary pairs need an even number", qk_rope_head_dim));
  if (n_routed_experts > 0) {
    if (num_experts_per_tok > n_routed_experts)
      refuse(fmt::format("num_experts_per_tok is {} but there are n_routed_experts = {}",
                         num_experts_per_tok, n_routed_experts));
    if (n_routed_experts % n_group)
      refuse(fmt::format("n_routed_experts = {} cannot be cut into n_group = {} equal groups",
                         n_routed_experts, n_group));
    if (topk_group > n_group)
      refuse(fmt::format("topk_group is {} but n_group is {}", topk_group, n_group));
    if (num_experts_per_tok > topk_group * (n_routed_experts / n_group))
      refuse(fmt::format("num_experts_per_tok is {} but topk_group = {} groups hold {} experts",
                         num_experts_per_tok, topk_group,
                         topk_group * (n_routed_experts / n_group)));
  }
  if (held_experts && (held_experts->first < 0 || held_experts->size() < 1 ||
                       held_experts->last > n_routed_experts))
    refuse(fmt::format("routed experts {} to {} cannot be held; n_routed_experts is {}",
                       held_experts->first, held_experts->last - 1, n_routed_experts));
  if (first_k_dense_replace > num_hidden_layers)
    refuse(fmt::format("first_k_dense_replace is {} but num_hidden_layers is {}",
                       first_k_dense_replace, num_hidden_layers));
  if ((num_hidden_layers + num_nextn_predict_layers) * n_routed_experts > kMostExperts)
    refuse(
        fmt::format("num_hidden_layers = {} of n_routed_experts = {} make more than {} experts, "
                    "surely a mistake",
                    num_hidden_layers, n_routed_experts, kMostExperts));
  for (const auto& [key, id] :
       {std::pair{"bos_token_id", bos_token_id}, std::pair{"pad_token_id", pad_token_id}})
    if (id && *id >= vocab_size)
      refuse(fmt::format("{} is {} but vocab_size is {}", key, *id, vocab_size));
  const double width = static_cast<double>(hidden_size);
  const double parameters =
      width * vocab_size * 2 +
      num_hidden_layers * (3.0 * width * n_routed_experts * moe_intermediate_size +
                           width * num_attention_heads * (qk_head_dim() + 2 * v_head_dim));
  if (parameters > 1e14)
    refuse(fmt::format("the sizes make about {:.3g} parameters; more than 1e14 is surely a mistake",
                       parameters));
}

Json ModelConfig::to_json() const {
  const bool fresh = !as_read_;
  Json j = fresh ? Json::object() : *as_read_;
  if (fresh) j["architectures"] = Json::array({"DeepseekV3ForCausalLM"});
  put(j, fresh, "attention_bias", false);
  put(j, fresh, "attention_dropout", 0.0);
  put(j, fresh, "aux_loss_alpha", aux_loss_alpha);
  put(j, fresh, "bos_token_id", or_null(bos_token_id));
  if (fresh || j.contains("eos_token_id"))
    j["eos_token_id"] = eos_token_ids.empty()       ? Json(nullptr)
                        : eos_token_ids.size() == 1 ? Json(eos_token_ids[0])
                                                    : Json(eos_token_ids);
  put(j, fresh, "ep_size", fresh ? Json(1) : j.value("ep_size", Json(1)));
  put(j, fresh, "first_k_dense_replace", first_k_dense_replace);
  put(j, fresh, "hidden_act", "silu");
  put(j, fresh, "hidden_size", hidden_size);
  put(j, fresh, "initializer_range", initializer_range);
  put(j, fresh, "intermediate_size", intermediate_size);
  put(j, fresh, "kv_lora_rank", kv_lora_rank);
  put(j, fresh, "max_position_embeddings", max_position_embeddings);
  put(j, fresh, "model_type", "deepseek_v3");
  if (n_routed_experts > 0) {
    put(j, fresh, "moe_intermediate_size", moe_intermediate_size);
    put(j, fresh, "n_group", n_group);
    put(j, fresh, "n_shared_experts", n_shared_experts);
    put(j, fresh, "norm_topk_prob", norm_topk_prob);
    put(j, fresh, "num_experts_per_tok", num_experts_per_tok);
    put(j, fresh, "routed_scaling_factor", routed_scaling_factor);
    put(j, fresh, "topk_group", topk_group);
  }
  put(j, fresh, "moe_layer_freq", moe_layer_freq);
  put(j, fresh, "n_routed_experts", n_routed_experts > 0 ? Json(n_routed_experts) : Json(nullptr));
  put(j, fresh, "num_attention_heads", num_attention_heads);
  put(j, fresh, "num_hidden_layers", num_hidden_layers);
  put(j, fresh, "num_key_value_heads", num_attention_heads);
  put(j, fresh || num_nextn_predict_layers > 0, "num_nextn_predict_layers",
      num_nextn_predict_layers);
  put(j, fresh, "pretraining_tp", fresh ? Json(1) : j.value("pretraining_tp", Json(1)));
  put(j, fresh, "q_lora_rank", or_null(q_lora_rank));
  put(j, fresh, "qk_nope_head_dim", qk_nope_head_dim);
  put(j, fresh, "qk_rope_head_dim", qk_rope_head_dim);
  put(j, fresh, "rms_norm_eps", rms_norm_eps);
  if (fresh) {
    j["rope_scaling"] = nullptr;
    if (rope_scaling)
      j["rope_scaling"] = {{"beta_fast", rope_scaling->beta_fast},
                           {"beta_slow", rope_scaling->beta_slow},
                           {"factor", rope_scaling->factor},
                           {"mscale", rope_scaling->mscale},
                           {"mscale_all_dim", rope_scaling->mscale_all_dim},
                           {"original_max_position_embeddings", rope_scaling->original_length},
                           {"type", "yarn"}};
  }
  put(j, fresh, "rope_theta", rope_theta);
  put(j, fresh, "scoring_func", "sigmoid");
  put(j, fresh, "seq_aux", fresh ? Json(true) : j.value("seq_aux", Json(true)));
  put(j, fresh, "tie_word_embeddings", false);
  put(j, fresh, "topk_method", "noaux_tc");
  put(j, fresh, j.contains("dtype") ? "dtype" : "torch_dtype", torch_dtype);
  put(j, fresh, "use_cache", fresh ? Json(true) : j.value("use_cache", Json(true)));
  put(j, fresh, "v_head_dim", v_head_dim);
  put(j, fresh, "vocab_size", vocab_size);
  if (!quantization && !int4) {
    j.erase("quantization_config");
  } else if (!j.contains("quantization_config")) {
    j["quantization_config"] = {{"activation_scheme", "dynamic"},
                                {"fmt", "e4m3"},
                                {"quant_method", "fp8"},
                                {"weight_block_size", {128, 128}}};
    if (quantization->power_of_two) j["quantization_config"]["scale_fmt"] = "ue8m0";
  }
  return j;
}

void ModelConfig::save(const std::filesystem::path& directory) const {
  write_file_atomic(directory / "config.json", to_json().dump(2) + "\n");
}

std::vector<StageRange> ModelConfig::local_stages() const {
  return held_stages.empty() ? std::vector{whole_model(*this)} : held_stages;
}

ModelConfig ModelConfig::whole() const {
  ModelConfig whole = *this;
  whole.held_experts.reset();
  whole.held_stages.clear();
  return whole;
}

bool ModelConfig::holds_layer(Index layer) const {
  const std::vector<StageRange> stages = local_stages();
  return std::any_of(stages.begin(), stages.end(), [&](const StageRange& stage) {
    return layer < num_hidden_layers ? stage.holds_layer(layer) : stage.output;
  });
}

double ModelConfig::softmax_scale() const {
  const double mscale = softmax_mscale(rope_scaling);
  return mscale * mscale / std::sqrt(static_cast<double>(qk_head_dim()));
}

RouteShape ModelConfig::route_shape() const {
  return {.n_experts = n_routed_experts,
          .top_k = num_experts_per_tok,
          .n_group = n_group,
          .topk_group = topk_group,
          .normalize = norm_topk_prob,
          .scale = routed_scaling_factor};
}

AttentionShape ModelConfig::expanded_attention() const {
  return {num_attention_heads, num_attention_heads, qk_head_dim(), v_head_dim};
}

AttentionShape ModelConfig::absorbed_attention() const {
  return {num_attention_heads, 1, cache_row(), kv_lora_rank};
}

}  // namespace minke

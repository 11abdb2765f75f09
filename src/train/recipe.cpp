#include "train/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "train/run_schedule.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

void check(const Recipe& r, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw ConfigError(fmt::format("{}: {}", where, what));
  };
  if ((r.steps > 0) == (r.tokens > 0))
    refuse(fmt::format("steps is {} and tokens is {}, but exactly one of the two must be above 0",
                       r.steps, r.tokens));
  if (r.optimizer.lr_segments.empty() && r.optimizer.min_lr > r.optimizer.lr)
    refuse(fmt::format("optimizer.min_lr is {}, but must be at most optimizer.lr = {}",
                       r.optimizer.min_lr, r.optimizer.lr));
  if (r.data.micro_batch > r.data.batch_size)
    refuse(fmt::format("data.micro_batch is {}, but must be at most data.batch_size = {}",
                       r.data.micro_batch, r.data.batch_size));
  if (r.compute == "fp8" && !r.recompute.swiglu)
    refuse("recompute.swiglu is false, but must be true with compute fp8");
  if (r.checkpoint.every == 0 && r.checkpoint.minutes == 0)
    refuse("checkpoint.every and checkpoint.minutes are both 0, but one must be above 0");
  constexpr Index most = Index{1} << 31;
  if (r.data.batch_size > most / r.data.sequence_length)
    refuse(fmt::format(
        "data.batch_size {} times data.sequence_length {} is more than 2^31 tokens a step",
        r.data.batch_size, r.data.sequence_length));
  constexpr Index most_tokens = Index{1} << 60;
  if (r.tokens > most_tokens || r.steps > most_tokens / r.tokens_per_step())
    refuse(fmt::format("{} is {}, which makes more than 2^60 tokens; surely a mistake",
                       r.steps > 0 ? "steps" : "tokens", std::max(r.tokens, r.steps)));
  if (r.exported.ema && r.ema.decay == 0)
    refuse("export.ema is true, but ema.decay is 0: no average of the weights is kept");
  try {
    (void)RunSchedule(r);
  } catch (const ConfigError& error) {
    refuse(error.what());
  }
}

// Whether the file or a --set gives this setting of a group.
bool gives(const Json& json, const std::vector<std::string>& settings, const char* group,
           const std::string& name) {
  if (json.contains(group) && json[group].is_object() && json[group].contains(name)) return true;
  const std::string start = fmt::format("{}.{}=", group, name);
  return std::any_of(settings.begin(), settings.end(),
                     [&](const std::string& s) { return s.starts_with(start); });
}

// "a.b" -> value, for every option.
void flatten(const nlohmann::ordered_json& json, const std::string& prefix,
             std::vector<std::pair<std::string, nlohmann::ordered_json>>& out) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object())
      flatten(value, prefix + key + ".", out);
    else
      out.emplace_back(prefix + key, value);
  }
}

// Another place for the same text is no change: the data position knows the tokens by their hash.
bool may_change(const std::string& name) {
  if (name == "data.micro_batch" || name == "data.held_out_rows" || name == "data.paths")
    return true;
  if (name == "optimizer.moments" || name == "seed" || name == "init_from") return false;
  for (const char* group : {"model.", "data.", "batch_ramp.", "ema."})
    if (name.starts_with(group)) return false;
  return true;
}

}  // namespace

Recipe Recipe::load(const fs::path& path, const std::vector<std::string>& settings) {
  const Json json = read_json(path, std::size_t{1} << 24);
  Recipe recipe;
  const OptionList list(recipe);
  options_from_json(list, json, path.string());
  bool sets_model = json.contains("model");
  for (const std::string& setting : settings) {
    set_option(list, setting);
    sets_model |= setting.starts_with("model.");
  }
  if (sets_model && !recipe.init_from.empty())
    throw ConfigError(
        fmt::format("{}: model.* and init_from exclude each other: a run that starts "
                    "from {} takes the model from its config.json",
                    path.string(), recipe.init_from));
  if (!recipe.optimizer.lr_segments.empty())
    for (const char* name : {"lr", "min_lr", "schedule"})
      if (gives(json, settings, "optimizer", name))
        throw ConfigError(fmt::format(
            "{}: optimizer.{} and optimizer.lr_segments exclude each other: the segments "
            "are the whole schedule after the warm-up",
            path.string(), name));
  check(recipe, path.string());
  return recipe;
}

void Recipe::check_runnable() const {
  if (out.empty())
    throw ConfigError(
        "out is missing: where the model goes; give it in the recipe or with --out DIR");
  if (data.paths.empty()) throw ConfigError("data.paths is missing: the text to train on");
  if (data.tokenizer.empty())
    throw ConfigError(
        "data.tokenizer is missing: a directory with tokenizer.json (minke train-tokenizer makes "
        "one)");
}

OptimizerSettings Recipe::optimizer_settings(double lr) const {
  return {.lr = lr,
          .beta1 = optimizer.beta1,
          .beta2 = optimizer.beta2,
          .eps = optimizer.eps,
          .weight_decay = optimizer.weight_decay,
          .clip = optimizer.clip,
          .no_decay = optimizer.no_decay};
}

ModelConfig Recipe::new_model(const Tokenizer& tokenizer) const {
  Recipe with_vocabulary = *this;
  if (model.vocab_size == 0) with_vocabulary.model.vocab_size = tokenizer.vocab_size();
  ModelConfig c = with_vocabulary.new_model();
  c.bos_token_id = tokenizer.bos_id();
  c.pad_token_id = tokenizer.pad_id();
  if (tokenizer.eos_id()) c.eos_token_ids = {*tokenizer.eos_id()};
  c.check("model");
  return c;
}

ModelConfig Recipe::new_model() const {
  if (model.vocab_size == 0)
    throw ConfigError(
        "model.vocab_size is 0, as the tokenizer has, and data.tokenizer names none; give one of "
        "the "
        "two");
  ModelConfig c;
  c.vocab_size = model.vocab_size;
  c.hidden_size = model.hidden_size;
  c.intermediate_size = model.intermediate_size;
  c.moe_intermediate_size = model.moe_intermediate_size;
  c.num_hidden_layers = model.num_hidden_layers;
  c.num_nextn_predict_layers = model.num_nextn_predict_layers;
  c.num_attention_heads = model.num_attention_heads;
  c.q_lora_rank = model.q_lora_rank;
  c.kv_lora_rank = model.kv_lora_rank;
  c.qk_nope_head_dim = model.qk_nope_head_dim;
  c.qk_rope_head_dim = model.qk_rope_head_dim;
  c.v_head_dim = model.v_head_dim;
  c.n_routed_experts = model.n_routed_experts;
  c.n_shared_experts = model.n_shared_experts;
  c.num_experts_per_tok = model.num_experts_per_tok;
  c.n_group = model.n_group;
  c.topk_group = model.topk_group;
  c.first_k_dense_replace = model.first_k_dense_replace;
  c.norm_topk_prob = model.norm_topk_prob;
  c.routed_scaling_factor = model.routed_scaling_factor;
  c.aux_loss_alpha = loss.alpha;
  c.rms_norm_eps = model.rms_norm_eps;
  c.rope_theta = model.rope_theta;
  c.initializer_range = model.initializer_range;
  c.max_position_embeddings = model.max_position_embeddings;
  c.check("model");
  return c;
}

void Recipe::check_model(const ModelConfig& c, const Tokenizer& tokenizer) const {
  if (data.sequence_length > c.max_position_embeddings)
    throw ConfigError(
        fmt::format("data.sequence_length is {}, but must be at most the model's "
                    "max_position_embeddings = {}",
                    data.sequence_length, c.max_position_embeddings));
  if (tokenizer.vocab_size() > c.vocab_size)
    throw ConfigError(
        fmt::format("the tokenizer in {} has {} entries, but the model's vocab_size is {}",
                    data.tokenizer, tokenizer.vocab_size(), c.vocab_size));
}

std::vector<std::string> recipe_changes(const nlohmann::ordered_json& recorded, Recipe& today) {
  std::vector<std::pair<std::string, nlohmann::ordered_json>> before, now;
  flatten(recorded, "", before);
  flatten(options_to_json(OptionList(today)), "", now);
  std::vector<std::string> changes;
  for (const auto& [name, value] : now) {
    if (name == "out") continue;
    const auto same_name = [&](const auto& entry) { return entry.first == name; };
    const auto found = std::find_if(before.begin(), before.end(), same_name);
    if (found == before.end() || found->second == value) continue;
    if (!may_change(name))
      throw ConfigError(
          fmt::format("{} is {}, but the checkpoint was made with {}; resume with the "
                      "recipe it was made with, or give another --out",
                      name, value.dump(), found->second.dump()));
    changes.push_back(fmt::format("{} {} instead of {}", name, value.dump(), found->second.dump()));
  }
  return changes;
}

TrainingForm Recipe::training_form() const {
  TrainingForm form;
  form.fp8_scales = fp8.scales == "float" ? ScaleForm::Float : ScaleForm::PowerOfTwo;
  form.fp8_statistics = fp8.statistics;
  form.recompute = {recompute.rmsnorm, recompute.mla_up, recompute.swiglu};
  return form;
}

std::chrono::milliseconds Recipe::timeout() const {
  return std::chrono::milliseconds(static_cast<std::int64_t>(1000 * parallel.timeout_seconds));
}

}  // namespace minke

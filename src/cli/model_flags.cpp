#include "cli/model_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "base/log.h"
#include "base/machine_memory.h"
#include "base/progress.h"
#include "base/threads.h"
#include "ops/isa.h"

namespace minke {
namespace {

constexpr std::uint64_t kMuchToLoad = std::uint64_t{512} << 20;

void warn_before_swapping(std::uint64_t weight_bytes) {
  const std::uint64_t here = read_machine_memory().available_bytes;
  if (here > 0 && weight_bytes > here)
    log_warning(fmt::format(
        "the weights take {:.1f} GB but only {:.1f} GB of memory are available: loading will swap "
        "or fail (`minke info --model DIR` says what is needed)",
        static_cast<double>(weight_bytes) * 1e-9, static_cast<double>(here) * 1e-9));
}

}  // namespace

Model load_for_use(const ModelFlags& flags, const AttentionForms& attention,
                   const LoadWishes& wishes) {
  log_info(fmt::format(
      "{} instructions, {} arithmetic, {} thread{}{}", name_of(chosen_isa()), flags.compute,
      n_threads(), n_threads() == 1 ? "" : "s",
      wishes.ranks ? fmt::format(" on each of {} ranks", wishes.ranks->n_ranks()) : ""));
  const auto needs = [&](AttentionForm form) {
    return attention.prompt == form || attention.generated == form;
  };
  LoadOptions options{.compute = parse_compute(flags.compute),
                      .absorbed = needs(AttentionForm::Absorbed),
                      .expanded = needs(AttentionForm::Expanded),
                      .mtp = wishes.mtp,
                      .allow_symlinks = flags.allow_symlinks,
                      .progress = {}};
  if (wishes.ranks) {
    ModelCaller::OwnPart own =
        wishes.ranks->call_to_load(ModelConfig::load(flags.model), wishes.mtp);
    options.held_stages = std::move(own.stages);
    options.held_experts = own.experts;
  }
  std::unique_ptr<Progress> progress;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (wishes.cancelled && wishes.cancelled()) throw Interrupted("");
    if (total < kMuchToLoad) return;
    if (!progress) {
      warn_before_swapping(total);
      progress = std::make_unique<Progress>(ProgressOptions{
          .label = "load", .unit = "bytes", .total = static_cast<std::int64_t>(total)});
    }
    progress->update(static_cast<std::int64_t>(done));
  };
  Model model = load_model(flags.model, options);
  model.cache_dtype = parse_cache_dtype(flags.cache_dtype);
  if (wishes.ranks) wishes.ranks->attach_to(model, wishes.cancelled);
  return model;
}

std::optional<Model> load_held_part(const ModelFlags& flags, const ModelPart& part) {
  LoadOptions options{.compute = parse_compute(flags.compute),
                      .mtp = part.mtp,
                      .allow_symlinks = flags.allow_symlinks,
                      .held_experts = part.experts,
                      .held_stages = part.stages,
                      .experts_alone = part.experts_alone};
  options.progress = [&](std::uint64_t, std::uint64_t) {
    if (part.called_off()) throw Interrupted("");
  };
  try {
    Model model = load_model(flags.model, options);
    model.cache_dtype = parse_cache_dtype(flags.cache_dtype);
    return model;
  } catch (const Interrupted&) {
    return std::nullopt;
  }
}

SamplerSettings SamplingFlags::over(const GenerationConfig& file) const {
  SamplerSettings s = file.sampler_defaults();
  s.temperature = temperature.value_or(s.temperature);
  s.top_k = top_k.value_or(s.top_k);
  s.top_p = top_p.value_or(s.top_p);
  s.min_p = min_p.value_or(s.min_p);
  s.repetition_penalty = repetition_penalty.value_or(s.repetition_penalty);
  s.presence_penalty = presence_penalty.value_or(s.presence_penalty);
  s.frequency_penalty = frequency_penalty.value_or(s.frequency_penalty);
  s.seed = seed ? static_cast<std::uint64_t>(*seed) : std::random_device()() & 0x7fffffffu;
  return s;
}

std::vector<std::int32_t> stop_ids_of(const ModelConfig& config, const GenerationConfig& file,
                                      const Tokenizer* tokenizer) {
  std::vector<std::int32_t> ids = file.eos_token_ids;
  for (const Index id : config.eos_token_ids) ids.push_back(static_cast<std::int32_t>(id));
  if (ids.empty() && tokenizer && tokenizer->eos_id()) ids.push_back(*tokenizer->eos_id());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.encode(text, SpecialTokens::Recognise);
  if (tokenizer.add_bos_token() && tokenizer.bos_id()) ids.insert(ids.begin(), *tokenizer.bos_id());
  return ids;
}

}  // namespace minke

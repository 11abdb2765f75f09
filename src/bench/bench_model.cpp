#include "bench/bench_model.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/machine_memory.h"
#include "bench/models.h"
#include "bench/random_model.h"
#include "model/checkpoint.h"
#include "model/latent_cache.h"
#include "ops/limits.h"

namespace minke::bench {
namespace {

namespace fs = std::filesystem;

WeightForm random_form(const ModelChoice& choice, Compute compute) {
  const std::string& wanted = choice.weights;
  if (wanted != "auto" && wanted != "fp8" && wanted != "bf16" && wanted != "int4")
    throw UsageError(fmt::format("--weights is \"{}\"; expected auto, fp8, bf16 or int4", wanted));
  if (compute == Compute::Fp64)
    throw UsageError("--compute fp64 is for training steps alone; expected bf16, fp8 or fp32");
  if (compute == Compute::Fp32) {
    if (wanted != "auto")
      throw UsageError("--compute fp32 reads FP32 weights; leave --weights out");
    return WeightForm::F32;
  }
  if (compute == Compute::Fp8 && (wanted == "bf16" || wanted == "int4"))
    throw UsageError("--compute fp8 reads FP8 weights; use --weights fp8 or leave it out");
  return wanted == "bf16"   ? WeightForm::Bf16
         : wanted == "int4" ? WeightForm::Int4
                            : WeightForm::E4m3;
}

// Weights that are made in memory have no file behind them: too many end in a kill.
void check_fits(const std::string& name, const ModelConfig& config, const RandomModel& options) {
  const LinearStorage storage = options.linear == WeightForm::E4m3   ? LinearStorage::E4m3
                                : options.linear == WeightForm::Int4 ? LinearStorage::Int4
                                                                     : LinearStorage::Plain;
  const double needed = weight_bytes(config, storage, options.compute).held;
  const auto here = static_cast<double>(read_machine_memory().available_bytes);
  if (here > 0 && needed > here)
    throw ConfigError(fmt::format(
        "the weights of {} take {}, but only {} of memory are available; try a smaller model{}",
        name, bytes_text(needed), bytes_text(here),
        options.linear == WeightForm::Int4 ? ""
                                           : ", or --compute bf16 with --weights fp8 or int4"));
}

std::string form_of(const Model& model) {
  const Weight& w = model.weights.layers.front().self_attn.o_proj;
  if (w.fp8_product) return "fp8";
  const WeightForm form = w.forward.form();
  return form == WeightForm::E4m3   ? "e4m3"
         : form == WeightForm::Int4 ? "int4"
         : form == WeightForm::Bf16 ? "bf16"
                                    : "fp32";
}

std::string directory_name(const std::string& directory) {
  const fs::path path = fs::path(directory).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

void check_directory(const std::string& model) {
  if (!fs::is_directory(model))
    throw UsageError(fmt::format(
        "'{}' is neither a benchmark model (mini, moonlight-9l, v3-slice) nor a model directory",
        model));
}

void check_directory(const ModelChoice& choice) {
  check_directory(choice.model);
  if (choice.weights != "auto")
    throw UsageError("--weights is for benchmark models; a directory's weights are as they are");
}

BenchModel opened(const ModelChoice& choice, std::string name, Model model) {
  model.cache_dtype = parse_cache_dtype(choice.cache);
  return {std::move(name), form_of(model), std::move(model)};
}

}  // namespace

BenchModel open_random(const ModelChoice& choice, const ModelConfig& config,
                       AttentionForm attention) {
  const Compute compute = parse_compute(choice.compute);
  const bool absorbed = attention == AttentionForm::Absorbed;
  const RandomModel options{.compute = compute,
                            .linear = random_form(choice, compute),
                            .absorbed = absorbed,
                            .expanded = !absorbed};
  check_fits(choice.model, config, options);
  return opened(choice, choice.model, random_model(config, options));
}

BenchModel open_model(const ModelChoice& choice, AttentionForm attention) {
  if (const auto config = find_benchmark_model(choice.model))
    return open_random(choice, *config, attention);
  check_directory(choice);
  const bool absorbed = attention == AttentionForm::Absorbed;
  return opened(choice, directory_name(choice.model),
                load_model(choice.model, {.compute = parse_compute(choice.compute),
                                          .absorbed = absorbed,
                                          .expanded = !absorbed,
                                          .mtp = false,
                                          .allow_symlinks = true,
                                          .progress = {}}));
}

BenchModel open_served(const ServedModel& served) {
  const ModelChoice& choice = served.choice;
  const Compute compute = parse_compute(choice.compute);
  if (auto config = find_benchmark_model(choice.model)) {
    config->max_position_embeddings = std::max(config->max_position_embeddings, served.context);
    config->num_nextn_predict_layers = served.modules;
    const RandomModel options{
        .compute = compute, .linear = random_form(choice, compute), .modules = true};
    check_fits(choice.model, *config, options);
    return opened(choice, choice.model, random_model(*config, options));
  }
  check_directory(choice);
  return opened(
      choice, directory_name(choice.model),
      load_model(choice.model, {.compute = compute, .allow_symlinks = true, .progress = {}}));
}

ModelSummary summarize_model(const std::string& model) {
  ModelSummary s;
  if (const auto config = find_benchmark_model(model)) {
    s.name = model;
    s.config = *config;
    s.storage = LinearStorage::E4m3;
  } else {
    check_directory(model);
    s.name = directory_name(model);
    s.config = summarize_checkpoint(model).config;
    s.config.num_nextn_predict_layers = 0;
    s.storage = storage_of(s.config);
  }
  s.count = count_parameters(s.config);
  return s;
}

double product_limit(Compute compute) {
  return compute == Compute::Fp32 ? fp32_flop_per_s() : bf16_flop_per_s();
}

}  // namespace minke::bench

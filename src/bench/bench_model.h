// Which model decode, prefill and doctor speak of: a benchmark model by name, its weights random,
// or a model directory.
#pragma once
#include <string>

#include "model/cached_forward.h"
#include "model/weight_bytes.h"

namespace minke::bench {

struct ModelChoice {
  std::string model = "mini";    // a name or a directory
  std::string compute = "bf16";  // bf16, fp8 or fp32
  std::string weights = "auto";  // of a benchmark model: fp8, bf16, int4, or auto
  std::string cache = "auto";    // rows of the latent cache: bf16, fp8, fp32, or auto
};

struct BenchModel {
  std::string name;  // "mini", or the last part of the directory's path
  std::string form;  // "e4m3", "int4", "bf16", "fp32", or "fp8" for the official arithmetic
  Model model;
};
// Holds kv_b_proj for one form of attention. UsageError for a name that is neither, and for options
// that cannot be met; ConfigError when random weights do not fit into the memory that is available.
BenchModel open_model(const ModelChoice& choice, AttentionForm attention);
// Random weights for these sizes, whatever choice.model is.
BenchModel open_random(const ModelChoice& choice, const ModelConfig& config,
                       AttentionForm attention);

// For prompts and decoding both, with MTP modules: those of a directory, or `modules` random ones.
// A benchmark model takes at least `context` tokens.
struct ServedModel {
  ModelChoice choice;
  Index context = 0;
  Index modules = 0;
};
BenchModel open_served(const ServedModel& served);

// Without loading anything.
struct ModelSummary {
  std::string name;
  ModelConfig config;  // MTP modules left out: they are not loaded for generation
  ParameterCount count;
  LinearStorage storage;  // benchmark models come in both; theirs is E4m3
};
ModelSummary summarize_model(const std::string& name_or_directory);

// flop/s of the products of this compute.
double product_limit(Compute compute);

}  // namespace minke::bench

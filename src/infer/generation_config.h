// `generation_config.json`: how the makers of a model mean it to be sampled.
#pragma once
#include <filesystem>
#include <optional>
#include <vector>

#include "infer/sampler.h"

namespace minke {

struct GenerationConfig {
  std::optional<bool> do_sample;  // false: temperature 0
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  std::vector<std::int32_t> eos_token_ids;  // a number or a list in the file

  // What directory/generation_config.json says; nothing when there is none. Unknown keys and nulls
  // are passed over. FormatError names the file and the key.
  static GenerationConfig load(const std::filesystem::path& directory);

  // The sampler's defaults with what is given here.
  SamplerSettings sampler_defaults() const;
};

}  // namespace minke

// The finished model as a Hugging Face directory: config.json, model.safetensors in BF16 or with
// its linears in FP8, tokenizer.json, tokenizer_config.json (and chat_template.jinja where there is
// one), generation_config.json. It appears whole or not at all.
#pragma once
#include <filesystem>
#include <vector>

#include "model/checkpoint.h"

namespace minke {

// Files of a tokenizer's directory that go with a model.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& directory);

void export_model(const std::filesystem::path& target, const ModelConfig& config,
                  const MasterSource& master_of, SaveDType dtype,
                  const std::filesystem::path& tokenizer);

}  // namespace minke

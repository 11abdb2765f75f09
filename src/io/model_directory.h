// A model directory that is made from another one.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/tensor_store.h"

namespace minke {

// UsageError when `out` is `model` or lies around it, or is there and may not be replaced.
void check_output(const std::filesystem::path& model, const std::filesystem::path& out,
                  bool overwrite);
// IoError when the disk of `out` has no room for the tensors.
void check_space(const std::filesystem::path& out, const std::vector<TensorDecl>& tensors);
// Copies what is neither weights nor config.json: tokenizer, templates, generation settings,
// licence, model card, remote code. Returns how many files.
std::int64_t copy_other_files(const std::filesystem::path& model, StoreOptions options,
                              AtomicDirectory& out);

}  // namespace minke

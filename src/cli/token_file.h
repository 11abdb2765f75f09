// The `tokens` tensor of a safetensors file, for the commands that are compared from outside.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/threads.h"

namespace minke {

// I64 `tokens` [B, S], B and S at least 1, each from 0 to vocabulary - 1; other tensors are
// ignored. FormatError names the file and what is wrong.
std::vector<std::vector<std::int32_t>> read_token_rows(const std::filesystem::path& path,
                                                       Index vocabulary);

}  // namespace minke

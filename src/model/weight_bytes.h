// Bytes of a model's weights in the form that inference reads, before anything is loaded: what the
// memory must hold, and what decoding must read.
#pragma once
#include "model/weights.h"

namespace minke {

// What linear weights are stored as; products read E4M3 in compute bf16 and fp8, 4 bits (in groups
// of 32 or 128; kv_b_proj stays BF16) in bf16.
enum class LinearStorage : std::uint8_t { Plain, E4m3, Int4, Int4Wide };
LinearStorage storage_of(const ModelConfig& config);
std::string_view name_of(LinearStorage storage);  // "BF16", "FP8", "4-bit"

struct WeightBytes {
  double held = 0;       // MTP modules included; kv_b_proj in both forms
  double per_token = 0;  // decoding one token of one sequence: absorbed attention, chosen experts
};
// Padding to whole panels is left out (published sizes have next to none).
WeightBytes weight_bytes(const ModelConfig& config, LinearStorage storage, Compute compute);

}  // namespace minke

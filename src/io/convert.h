// Converts a model directory between BF16 and FP8 and between shard sizes, tensor by tensor: memory
// stays bounded by the largest tensor, whatever the model.
//
// FP8 to BF16: float(code) * scale in FP32, rounded once: the published dequantisation, bit for
// bit. To FP8: the published set of weights in 128x128 blocks (tensor/fp8_blocks.h), the rest BF16.
// To 4 bits: the same set but kv_b_proj, whose halves decoding needs apart, in groups
// (tensor/int4_groups.h), as compressed-tensors' "pack-quantized"; the rest BF16. From 4 bits to
// BF16 back: (code - 8) * scale in FP32, rounded once.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/function_ref.h"
#include "io/tensor_store.h"

namespace minke {

enum class ConvertTo { Keep, Bf16, Fp8, Int4 };

struct ConvertOptions {
  std::filesystem::path model = {}, out = {};
  ConvertTo to = ConvertTo::Keep;
  ScaleForm scale = ScaleForm::Float;  // of weights that become FP8; stored as F32
  Index group = 32;  // numbers under one scale, of weights that become 4 bits: 32 or 128
  std::uint64_t max_shard_bytes = 5'000'000'000;
  bool allow_symlinks = false;
  bool overwrite = false;  // `out` may exist, if minke wrote it
};

struct ConvertReport {
  std::int64_t tensors = 0;  // written, scales included
  // to BF16, to FP8 or 4 bits, F32 -> BF16
  std::int64_t dequantized = 0, quantized = 0, rounded = 0;
  std::int64_t files_copied = 0;  // tokenizer, licence, ...
  std::uint64_t bytes_read = 0, bytes_written = 0;
};

// Writes options.out as a whole or not at all. `progress(done, total)` counts bytes read; it may
// throw to stop. config.json keeps its keys and their order; `quantization_config` comes, goes and
// `torch_dtype` / `dtype` follows. Errors name file and tensor.
ConvertReport convert_model(const ConvertOptions& options,
                            FunctionRef<void(std::uint64_t, std::uint64_t)> progress);

// Whether the published checkpoints hold this weight in FP8: the linears of attention, of dense
// layers and of routed and shared experts; not embedding, heads, norms, router, eh_proj or biases.
bool is_fp8_weight(std::string_view name);

}  // namespace minke

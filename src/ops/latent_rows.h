// Rows of the latent cache in memory: of each position [c_kv (C); k_rope (R)] in one of three
// forms.
//
//   F32, BF16   C + R numbers, rounded to the type
//   F8_E4M3     c_kv as E4M3 with one FP32 scale for every 128 of C (the last may be fewer),
//               k_rope in BF16. The parts in memory: ceil(C / 128) scales, R BF16, C codes; with
//               C 512 and R 64 these are 16 + 128 + 512 = 656 bytes, where BF16 takes 1152.
//
// Codes and scales are those of quantize_rows (ops/quantize.h); a value is FP32(code) * scale. The
// rotary part is small and its errors would grow with the position's angle differences in every
// score, so it stays BF16. A tile with a NaN or an infinity is NaN as a whole: decoding by FP16
// bits (ops/attention_body.h) knows no NaN code.
#pragma once
#include <cstddef>
#include <span>

#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

inline constexpr Index kLatentScale = 128;  // numbers that share a scale

struct LatentRow {
  DType dtype;   // F32, BF16 or F8_E4M3
  Index latent;  // C
  Index rope;    // R
  Index width() const { return latent + rope; }
  Index n_scales() const;     // of a row in FP8
  std::size_t bytes() const;  // from one row to the next; a multiple of a number's size
  // Of the parts of a row in FP8; the scales come first.
  std::size_t rope_offset() const { return static_cast<std::size_t>(n_scales()) * sizeof(float); }
  std::size_t code_offset() const;
  bool operator==(const LatentRow&) const = default;
};

// rows [n, C+R] -> n rows from `to` on, aligned to 4 bytes.
void store_latent_rows(const LatentRow& row, View2<const float> rows, std::byte* to);
// n rows from `from` on -> rows [n, C+R].
void load_latent_rows(const LatentRow& row, const std::byte* from, View2<float> rows);

// Rows of kKeyTile pages in FP8, for attention: page p holds rows [64 p, 64 p + 64).
struct Fp8LatentRows {
  LatentRow row;
  std::span<const void* const> pages;
  Index n_rows = 0;
};

}  // namespace minke

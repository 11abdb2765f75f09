// Tensors of FP8 training: E4M3 codes whose scales are found online from the maximum of each tile
// (the report, 3.3.2). Activations and output gradients have tiles of 1x128 along the dimension
// that forward and input-gradient products sum over, weights blocks of 128x128; weight gradients
// sum over tokens, so that their operands are tiled again, 128x1.
//
//   scale = max(amax, 448 * 2^-117) / 448; as a power of two: rounded up to one, at most 2^119
//   code  = E4M3(x / scale), NaN where x is not finite
//
// Inference's floor of amax, 1e-4 (tensor/fp8_blocks.h), is for activations of about unit size. The
// gradient of a mean over a million tokens lies below it and would become zero whole; the floor
// here only keeps every value of a power-of-two scale a normal BF16 number (ops/linear.h).
// All results are the same for every instruction set and number of threads.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/fp8_blocks.h"
#include "tensor/tensor.h"

namespace minke {

inline constexpr Index kFp8Tile = 128;

// What quantising did to values. Clipped: |x| / scale above 464, the midpoint between the largest
// code and what would follow it. Underflow: not zero, but code zero.
struct Fp8Counts {
  std::int64_t values = 0, nonzero = 0, clipped = 0, underflow = 0;

  Fp8Counts& operator+=(const Fp8Counts& other);
  double clipped_share() const;    // of all values; 0 where there are none
  double underflow_share() const;  // of those that were not zero
  bool operator==(const Fp8Counts&) const = default;
};

// Rows of codes in tiles of 1x128; does not own them.
struct Fp8View {
  View2<const E4M3> codes;    // [T, K]
  View2<const float> scales;  // [T, ceil(K / 128)]

  Fp8View rows(Index begin, Index count) const {
    return {codes.rows(begin, count), scales.rows(begin, count)};
  }
};

struct Fp8Rows {
  Tensor codes;   // E4M3 [T, K]
  Tensor scales;  // F32 [T, ceil(K / 128)]

  bool defined() const { return codes.defined(); }
  std::size_t bytes() const { return codes.bytes() + scales.bytes(); }
  Fp8View view() const { return {codes.view<E4M3, 2>(), scales.v2()}; }
};

// x [T, K] in tiles of 1x128. `counts`, when given, are added to.
Fp8Rows fp8_rows(View2<const float> x, ScaleForm form, Fp8Counts* counts = nullptr);
// y [T, K] = code * scale in FP32.
void dequantize(const Fp8View& x, View2<float> y);

// Tiles of 128x1: 128 tokens of one column. With power-of-two scales `values` are code * scale and
// `scales` is empty; otherwise `values` are those of the codes. BF16 holds both without rounding.
struct Fp8Columns {
  Tensor values;  // BF16 [T, K]
  Tensor scales;  // F32 [tiles, K], or empty
};

// The tokens of one group (of one expert: rows [offsets[e], offsets[e + 1])) share no tile with
// another's; a group's tiles follow those of the groups before it. Codes are dequantised, and
// quantised again along tokens.
Fp8Columns fp8_columns(const Fp8View& x, std::span<const Index> offsets, ScaleForm form);
Fp8Columns fp8_columns(View2<const float> x, std::span<const Index> offsets, ScaleForm form);

// w [N, K] in blocks of 128x128 -> codes [N, K], scales [ceil(N / 128), ceil(K / 128)].
void fp8_blocks(View2<const float> w, ScaleForm form, View2<E4M3> codes, View2<float> scales,
                Fp8Counts* counts = nullptr);
// The same as values: y [N, K] = code * scale, exact in BF16, with power-of-two scales.
void round_to_fp8_blocks(View2<const float> w, View2<float> y, Fp8Counts* counts = nullptr);

// The scale of a tile with this maximum.
float fp8_tile_scale(float amax, ScaleForm form);

namespace reference {
// The definitions, element by element.
E4M3 fp8_code(float x, float scale);
void fp8_rows(View2<const float> x, ScaleForm form, View2<E4M3> codes, View2<float> scales,
              Fp8Counts& counts);
// One tile of 128x1 for each column of x [T <= 128, K]: code values, and scales [K].
void fp8_columns(View2<const float> x, ScaleForm form, View2<float> code_values,
                 View1<float> scales);
}  // namespace reference

}  // namespace minke

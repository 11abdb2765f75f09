// Weights of 4 bits in groups: the scalar definition, in the layout that compressed-tensors calls
// "pack-quantized" (symmetric, strategy "group"), which other engines load as well.
//
//   value = (code - 8) * scale[n, k / group]     code 0..15, scale in BF16, the product in FP32
//
// Eight codes of a row lie in one I32, the first in its lowest bits; a row that does not fill its
// last I32 or its last group is filled up with code 8, which is zero.
#pragma once
#include "tensor/dtype.h"
#include "tensor/tensor.h"
#include "tensor/view.h"

namespace minke {

inline constexpr Index kInt4PerWord = 8;

struct Int4Matrix {
  Tensor packed;  // I32 [N, ceil(K / 8)]
  Tensor scales;  // BF16 [N, ceil(K / group)]
  Index k = 0, group = 0;
};

// ConfigError unless a group has 32 or 128 numbers: what the products are made for.
void check_int4_group(Index group);

// w [N, K]. Of some scales near max |w| / 7.5 each group takes the one whose codes are nearest in
// the mean square. Throws Error where a number is not finite.
Int4Matrix quantize_int4(View2<const float> w, Index group);

// packed, scales as above -> y [N, K].
void dequantize_int4(View2<const std::int32_t> packed, View2<const BF16> scales, Index group,
                     View2<float> y);

}  // namespace minke

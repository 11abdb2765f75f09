// Activations in E5M6 (tensor/e5m6.h) in tiles of 1x128 with power-of-two scales, 1.51 bytes a
// value: the cached output of attention, which both the weight gradient of the linear after it and
// attention's own backward pass read (the report, 3.3.3).
//
//   scale = max(amax, 129024 * 2^-117) / 129024 rounded up to a power of two, at most 2^119
//   code  = E5M6(x / scale), NaN where x is not finite
#pragma once
#include "tensor/tensor.h"

namespace minke {

struct E5m6Rows {
  Tensor codes;   // U8 [T, bytes of a row], each tile packed by itself
  Tensor scales;  // F8_E8M0 [T, ceil(K / 128)]
  Index columns = 0;

  bool defined() const { return codes.defined(); }
  std::size_t bytes() const { return codes.bytes() + scales.bytes(); }
};

// x [T, K].
E5m6Rows e5m6_rows(View2<const float> x);
// y [T, K] = code * scale in FP32.
void dequantize(const E5m6Rows& x, View2<float> y);

}  // namespace minke

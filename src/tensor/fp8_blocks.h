// Block-scaled E4M3: the scalar definition of the published quantisation.
//
//   scale = max(amax of the block, 1e-4) / 448      code = E4M3(x / scale)
//   value = float(code) * scale, in FP32; to BF16 it is rounded once
//
// Weights have 128x128 blocks, activations 1x128; the last block of a row or column may be shorter
// and has its own scale. `scale` is what checkpoints store as weight_scale_inv. The report, 3.3.2;
// inference/kernel.py of the official code.
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

struct Fp8Block {
  Index rows = 128, columns = 128;
  bool operator==(const Fp8Block&) const = default;
};
inline constexpr Fp8Block kWeightBlock{128, 128};
inline constexpr Fp8Block kActivationBlock{1, 128};

enum class ScaleForm {
  Float,       // as above
  PowerOfTwo,  // rounded up to a power of two ("ue8m0")
};

inline Index block_count(Index n, Index block) {
  return (n + block - 1) / block;
}

// x [N, K] -> scales [ceil(N/rows), ceil(K/columns)]. T is float or BF16. NaN is not counted.
template <class T>
void block_scales(View2<const T> x, Fp8Block block, ScaleForm form, View2<float> scales);

// x [N, K], scales as above -> codes [N, K].
template <class T>
void quantize_with_scales(View2<const T> x, Fp8Block block, View2<const float> scales,
                          View2<E4M3> codes);

// Both of the above.
template <class T>
void quantize_blocks(View2<const T> x, Fp8Block block, ScaleForm form, View2<E4M3> codes,
                     View2<float> scales);

// codes [N, K], scales -> y [N, K]. T is float or BF16.
template <class T>
void dequantize_blocks(View2<const E4M3> codes, View2<const float> scales, Fp8Block block,
                       View2<T> y);

// Every scale is 2^e, so that FP8 arithmetic may shift exponents instead of multiplying.
bool powers_of_two(View2<const float> scales);

}  // namespace minke

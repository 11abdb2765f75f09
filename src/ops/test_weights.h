// Packed weights of random numbers, for tests of products.
#pragma once
#include "ops/linear.h"
#include "ops/test_values.h"
#include "tensor/fp8_blocks.h"

namespace minke::test {

// W [n, k] in form F32, Bf16 or E4m3.
inline PackedWeights random_weights(Index n, Index k, WeightForm form, std::uint64_t seed) {
  const auto w = Matrix<float>::random(n, k, seed);
  if (form != WeightForm::E4m3) return PackedWeights::pack(w.view(), form);
  Matrix<E4M3> codes(n, k);
  Matrix<float> scales((n + 127) / 128, (k + 127) / 128);
  quantize_blocks<float>(w.view(), kWeightBlock, ScaleForm::Float, codes.view(), scales.view());
  return PackedWeights::pack(std::as_const(codes).view(), std::as_const(scales).view());
}

}  // namespace minke::test

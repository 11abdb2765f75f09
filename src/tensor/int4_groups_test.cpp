#include "tensor/int4_groups.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"

namespace minke {
namespace {

Tensor random_matrix(Index n, Index k, unsigned seed) {
  Tensor w = Tensor::uninitialized({n, k});
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < k; ++j) w.v2()(i, j) = normal(generator);
  return w;
}

Tensor through_int4(const Tensor& w, Index group) {
  const Int4Matrix q = quantize_int4(w.v2(), group);
  Tensor y = Tensor::uninitialized(w.shape());
  dequantize_int4(q.packed.view<std::int32_t, 2>(), q.scales.view<BF16, 2>(), group, y.v2());
  return y;
}

// As compressed-tensors packs: value + 8, eight to a word, the first in the lowest bits.
TEST(Int4Groups, CodesLieAsPublished) {
  Tensor w = Tensor::uninitialized({1, 32});
  for (Index k = 0; k < 32; ++k) w.v2()(0, k) = static_cast<float>(k % 16 - 8);
  const Int4Matrix q = quantize_int4(w.v2(), 32);
  EXPECT_EQ(static_cast<float>(q.scales.view<BF16, 2>()(0, 0)), 1.0f);
  const auto packed = q.packed.view<std::int32_t, 2>();
  EXPECT_EQ(static_cast<std::uint32_t>(packed(0, 0)), 0x76543210u);
  EXPECT_EQ(static_cast<std::uint32_t>(packed(0, 1)), 0xFEDCBA98u);
}

TEST(Int4Groups, WhatIsOnTheGridSurvivesAtAnySize) {
  for (const Index group : {32, 128})
    for (const Index k : {1, 7, 8, 31, 32, 33, 127, 200, 257}) {
      Tensor w = through_int4(random_matrix(3, k, static_cast<unsigned>(k)), group);
      const Int4Matrix q = quantize_int4(w.v2(), group);
      Tensor y = Tensor::uninitialized(w.shape());
      dequantize_int4(q.packed.view<std::int32_t, 2>(), q.scales.view<BF16, 2>(), group, y.v2());
      for (Index i = 0; i < 3; ++i)
        for (Index j = 0; j < k; ++j)
          EXPECT_NEAR(y.v2()(i, j), w.v2()(i, j), 0.02 * std::fabs(w.v2()(i, j)) + 1e-6);
    }
}

// Searching the scale beats max / 7.5, which is what it starts from.
TEST(Int4Groups, ErrorIsBelowThatOfThePlainScale) {
  const Tensor w = random_matrix(64, 512, 5);
  const Tensor y = through_int4(w, 32);
  double ours = 0, plain = 0, size = 0;
  for (Index n = 0; n < 64; ++n)
    for (Index g = 0; g < 512; g += 32) {
      float largest = 0;
      for (Index k = g; k < g + 32; ++k) largest = std::max(largest, std::fabs(w.v2()(n, k)));
      const float scale = BF16(largest / 7.5f);
      for (Index k = g; k < g + 32; ++k) {
        const float v = w.v2()(n, k);
        const float code = std::clamp(std::nearbyint(v / scale), -8.0f, 7.0f);
        plain += std::pow(v - code * scale, 2);
        ours += std::pow(v - y.v2()(n, k), 2);
        size += v * v;
      }
    }
  EXPECT_LT(ours, 0.97 * plain);
  EXPECT_LT(std::sqrt(ours / size), 0.09);
}

TEST(Int4Groups, ZerosStayZerosAndBadNumbersThrow) {
  const Tensor zeros(DType::F32, {2, 40});
  const Tensor y = through_int4(zeros, 32);
  for (Index k = 0; k < 40; ++k) EXPECT_EQ(y.v2()(1, k), 0.0f);
  Tensor bad(DType::F32, {1, 32});
  bad.v2()(0, 3) = std::numeric_limits<float>::infinity();
  EXPECT_THROW(quantize_int4(bad.v2(), 32), Error);
  EXPECT_THROW(quantize_int4(zeros.v2(), 64), ConfigError);
  const View2<const std::int32_t> too_few(nullptr, {2, 4});
  EXPECT_THROW(dequantize_int4(too_few, View2<const BF16>(nullptr, {2, 2}), 32,
                               View2<float>(nullptr, {2, 40})),
               ShapeError);
}

}  // namespace
}  // namespace minke

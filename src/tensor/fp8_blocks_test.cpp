#include "tensor/fp8_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/tensor.h"

namespace minke {
namespace {

Tensor random_matrix(Index n, Index k, float scale = 1.0f) {
  Tensor x = Tensor::zeros({n, k});
  std::mt19937 random(static_cast<unsigned>(n * 1000 + k));
  for (Index i = 0; i < x.size(); ++i)
    x.flat()(i) = scale * (static_cast<float>(random() % 20001) / 10000.0f - 1.0f);
  return x;
}

TEST(Fp8Blocks, RaggedBlocksHaveTheirOwnScales) {
  for (Index n : {1, 127, 128, 129, 300})
    for (Index k : {1, 128, 131, 256, 257}) {
      Tensor x = random_matrix(n, k, 0.02f);
      Tensor codes(DType::F8_E4M3, {n, k});
      Tensor scales = Tensor::zeros({block_count(n, 128), block_count(k, 128)});
      quantize_blocks(View2<const float>(x.v2()), kWeightBlock, ScaleForm::Float,
                      codes.view<E4M3, 2>(), scales.v2());
      Tensor y = Tensor::zeros({n, k});
      const Tensor& c = codes;
      const Tensor& s = scales;
      dequantize_blocks(c.view<E4M3, 2>(), s.v2(), kWeightBlock, y.v2());
      for (Index r = 0; r < n; ++r)
        for (Index j = 0; j < k; ++j) {
          const float scale = s.v2()(r / 128, j / 128);
          // Half a unit in the last place of three bits, or half of the smallest step.
          const float allowed = std::max(std::fabs(x.v2()(r, j)) / 16, scale * 0.0009765625f);
          ASSERT_LE(std::fabs(y.v2()(r, j) - x.v2()(r, j)), allowed * 1.0001f);
        }
    }
}

TEST(Fp8Blocks, ShapesThatDoNotFitAreRefused) {
  Tensor x = random_matrix(130, 130), codes(DType::F8_E4M3, {130, 130});
  Tensor scales = Tensor::zeros({1, 2}), right = Tensor::zeros({2, 2});
  const View2<const float> in = x.v2();
  EXPECT_THROW(block_scales(in, kWeightBlock, ScaleForm::Float, scales.v2()), ShapeError);
  EXPECT_THROW(quantize_blocks(in, kWeightBlock, ScaleForm::Float,
                               codes.view<E4M3, 2>().rows(0, 129), right.v2()),
               ShapeError);
}

TEST(Fp8Blocks, PowerOfTwoScalesAreRecognised) {
  Tensor x = random_matrix(200, 300, 0.1f), scales = Tensor::zeros({2, 3});
  const View2<const float> in = x.v2();
  const Tensor& s = scales;
  block_scales(in, kWeightBlock, ScaleForm::Float, scales.v2());
  EXPECT_FALSE(powers_of_two(s.v2()));
  block_scales(in, kWeightBlock, ScaleForm::PowerOfTwo, scales.v2());
  EXPECT_TRUE(powers_of_two(s.v2()));
  for (float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    scales.v2()(1, 1) = bad;
    EXPECT_FALSE(powers_of_two(s.v2())) << bad;
  }
}

TEST(Fp8Blocks, ToBf16ItIsRoundedOnce) {
  Tensor codes(DType::F8_E4M3, {1, 256}), scales = Tensor::zeros({1, 2});
  for (Index i = 0; i < 256; ++i)
    codes.view<E4M3, 2>()(0, i).code = static_cast<std::uint8_t>(i % 0x7F);
  scales.v2()(0, 0) = 0.0123456f;
  scales.v2()(0, 1) = 3.3e-5f;
  Tensor y(DType::BF16, {1, 256});
  const Tensor& c = codes;
  const Tensor& s = scales;
  dequantize_blocks(c.view<E4M3, 2>(), s.v2(), kWeightBlock, y.view<BF16, 2>());
  for (Index i = 0; i < 256; ++i)
    EXPECT_EQ((y.view<BF16, 2>()(0, i).bits),
              BF16(float(c.view<E4M3, 2>()(0, i)) * s.v2()(0, i / 128)).bits);
}

}  // namespace
}  // namespace minke

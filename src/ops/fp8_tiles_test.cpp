#include "ops/fp8_tiles.h"

#include <bit>
#include <cstring>

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;
using test::on_every_isa;

constexpr ScaleForm kForms[] = {ScaleForm::Float, ScaleForm::PowerOfTwo};

// Rows over many decades, from below FP32's normal range, with zeros and what is not finite.
Matrix<float> wide_values(Index rows, Index columns, Index gap = 0) {
  Matrix<float> x = Matrix<float>::random(rows, columns, 5 + rows + columns, 1, gap);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      x(r, c) *= std::pow(10.0f, static_cast<float>((r * 7) % 70) - 36);
      if ((r + c) % 11 == 0) x(r, c) *= 1e-4f;
      if ((r + 2 * c) % 13 == 0) x(r, c) = 0;
    }
  if (rows > 3 && columns > 2) {
    x(1, 0) = std::numeric_limits<float>::quiet_NaN();
    x(2, 1) = -std::numeric_limits<float>::infinity();
    x(3, 2) = 3.4e38f;
  }
  return x;
}

void expect_same_codes(View2<const E4M3> a, View2<const E4M3> b, View2<const float> x) {
  for (Index t = 0; t < x.extent(0); ++t)
    for (Index k = 0; k < x.extent(1); ++k)
      ASSERT_EQ(a(t, k).code & (a(t, k).code % 128 == 127 ? 0x7F : 0xFF),
                b(t, k).code & (b(t, k).code % 128 == 127 ? 0x7F : 0xFF))
          << x(t, k) << " at " << t << ", " << k;
}

TEST(Fp8Tiles, ScalesOfPowersOfTwoAreRoundedUp) {
  std::vector<float> maxima{0, 0x1p-149f, 448, 1e38f, std::numeric_limits<float>::infinity()};
  for (const float x : test::random_values(500, 3)) maxima.push_back(std::exp2(30 * x));
  for (const float amax : maxima) {
    const float exact = fp8_tile_scale(amax, ScaleForm::Float);
    EXPECT_EQ(fp8_tile_scale(amax, ScaleForm::PowerOfTwo), float(UE8M0::round_up(exact))) << amax;
  }
}

TEST(Fp8Tiles, RowsAreTheDefinitionsOnEveryInstructionSet) {
  for (ScaleForm form : kForms)
    for (Index K : {1, 2, 15, 16, 17, 127, 128, 129, 300}) {
      const Matrix<float> x = wide_values(73, K, 3);
      Tensor codes(DType::F8_E4M3, {73, K}), scales = Tensor::zeros({73, block_count(K, 128)});
      Fp8Counts counts;
      reference::fp8_rows(x.view(), form, codes.view<E4M3, 2>(), scales.v2(), counts);
      on_every_isa([&] {
        Fp8Counts seen;
        const Fp8Rows y = fp8_rows(x.view(), form, &seen);
        EXPECT_EQ(0, std::memcmp(y.scales.raw(), scales.raw(), scales.bytes()));
        expect_same_codes(y.view().codes, codes.view<E4M3, 2>(), x.view());
        EXPECT_EQ(seen, counts);
        Matrix<float> back(73, K, 2);
        dequantize(y.view(), back.view());
        for (Index t = 0; t < 73; ++t)
          for (Index k = 0; k < K; ++k) {
            const float value = float(y.view().codes(t, k)) * scales.v2()(t, k / 128);
            if (std::isnan(value))
              ASSERT_TRUE(std::isnan(back(t, k)));
            else
              ASSERT_EQ(back(t, k), value);
          }
      });
    }
}

// Above inference's floor of the maximum the rule is the published one.
TEST(Fp8Tiles, RowsOfUnitSizeAreThoseOfInference) {
  for (ScaleForm form : kForms) {
    const Matrix<float> x = Matrix<float>::random(30, 200, 8);
    Tensor codes(DType::F8_E4M3, {30, 200}), scales = Tensor::zeros({30, 2});
    quantize_blocks(x.view(), kActivationBlock, form, codes.view<E4M3, 2>(), scales.v2());
    const Fp8Rows rows = fp8_rows(x.view(), form);
    EXPECT_EQ(rows.bytes(), 30u * (200 + 2 * 4));
    EXPECT_EQ(0, std::memcmp(rows.codes.raw(), codes.raw(), codes.bytes()));
    EXPECT_EQ(0, std::memcmp(rows.scales.raw(), scales.raw(), scales.bytes()));
  }
}

// A mean over a million positions has gradients of 1e-7 and less.
TEST(Fp8Tiles, SmallGradientsKeepTheirPrecision) {
  for (ScaleForm form : kForms)
    for (double size : {1e-6, 1e-12, 1e-30}) {
      const Matrix<float> x = Matrix<float>::random(4, 256, 1, size);
      Fp8Counts counts;
      const Fp8Rows y = fp8_rows(x.view(), form, &counts);
      Matrix<float> back(4, 256);
      dequantize(y.view(), back.view());
      EXPECT_LT(counts.underflow_share(), 0.01);
      test::expect_near(back, x, size / 64, 1.0 / 16);
    }
}

TEST(Fp8Tiles, PowerOfTwoScalesGiveNormalBf16Numbers) {
  for (float amax : {0.0f, 1e-45f, 1e-38f, 1e-4f, 1.0f, 448.0f, 449.0f, 3.4e38f}) {
    const float scale = fp8_tile_scale(amax, ScaleForm::PowerOfTwo);
    EXPECT_GE(std::ilogb(scale), -117);
    EXPECT_LE(std::ilogb(scale), 119);
    EXPECT_EQ(std::scalbn(1.0f, std::ilogb(scale)), scale);
    if (amax > 1e-30f && amax < 1e38f) {
      EXPECT_GE(448 * scale, amax);
    }
  }
}

TEST(Fp8Tiles, ClippedAndLostValuesAreCounted) {
  Matrix<float> x(1, 8);
  x(0, 0) = 3.4e38f;  // above 464 * 2^119 / 2^0: the largest scale does not reach it
  x(0, 1) = 1e20f;    // lost beside it
  x(0, 2) = -1e37f;
  Fp8Counts counts;
  fp8_rows(x.view(), ScaleForm::PowerOfTwo, &counts);
  EXPECT_EQ(counts, (Fp8Counts{8, 3, 1, 1}));
  EXPECT_DOUBLE_EQ(counts.clipped_share(), 1.0 / 8);
  EXPECT_DOUBLE_EQ(counts.underflow_share(), 1.0 / 3);
  EXPECT_EQ(Fp8Counts{}.clipped_share(), 0);
}

TEST(Fp8Tiles, ColumnsAreTheDefinitionsInEveryGroup) {
  const std::vector<Index> offsets{0, 0, 1, 130, 130, 300};
  for (ScaleForm form : kForms)
    for (Index K : {1, 15, 33, 650}) {
      const Matrix<float> x = Matrix<float>::random(300, K, 9, 1e-5);
      const Fp8Rows rows = fp8_rows(x.view(), form);
      Matrix<float> cached(300, K);
      dequantize(rows.view(), cached.view());
      on_every_isa([&] {
        const Fp8Columns y = fp8_columns(rows.view(), offsets, form);
        Index tile = 0;
        for (const auto& [row, n] :
             {std::pair<Index, Index>{0, 1}, {1, 128}, {129, 1}, {130, 128}, {258, 42}}) {
          Matrix<float> values(n, K), scales(1, K);
          reference::fp8_columns(cached.view().rows(row, n), form, values.view(), scales.flat());
          for (Index t = 0; t < n; ++t)
            for (Index k = 0; k < K; ++k) {
              const bool folded = form == ScaleForm::PowerOfTwo;
              ASSERT_EQ(float(y.values.v2<BF16>()(row + t, k)),
                        values(t, k) * (folded ? scales(0, k) : 1));
              if (!folded) {
                ASSERT_EQ(y.scales.v2()(tile, k), scales(0, k));
              }
            }
          ++tile;
        }
        if (form == ScaleForm::Float) {
          EXPECT_EQ(y.scales.extent(0), tile);
        }
      });
    }
  const Fp8Rows rows = fp8_rows(Matrix<float>(4, 3).view(), ScaleForm::Float);
  const Index short_of[] = {0, 3};
  EXPECT_THROW(fp8_columns(rows.view(), short_of, ScaleForm::Float), ShapeError);
}

TEST(Fp8Tiles, WeightBlocksAreTheDefinitions) {
  for (ScaleForm form : kForms) {
    const Matrix<float> w = Matrix<float>::random(200, 150, 3, 0.02, 5);
    Tensor codes(DType::F8_E4M3, {200, 150}), scales = Tensor::zeros({2, 2});
    quantize_blocks(w.view(), kWeightBlock, form, codes.view<E4M3, 2>(), scales.v2());
    on_every_isa([&] {
      Tensor mine(DType::F8_E4M3, {200, 150}), s = Tensor::zeros({2, 2});
      Fp8Counts counts;
      fp8_blocks(w.view(), form, mine.view<E4M3, 2>(), s.v2(), &counts);
      EXPECT_EQ(0, std::memcmp(mine.raw(), codes.raw(), codes.bytes()));
      EXPECT_EQ(0, std::memcmp(s.raw(), scales.raw(), s.bytes()));
      EXPECT_EQ(counts.values, 200 * 150);
      if (form == ScaleForm::Float) return;
      Matrix<float> values(200, 150), expected(200, 150);
      Fp8Counts again;
      round_to_fp8_blocks(w.view(), values.view(), &again);
      dequantize_blocks(View2<const E4M3>(codes.view<E4M3, 2>()), View2<const float>(scales.v2()),
                        kWeightBlock, expected.view());
      test::expect_same_bits(values, expected);
      EXPECT_EQ(again, counts);
    });
  }
}

TEST(Fp8Tiles, CountsAreTheSameOnAnyNumberOfThreads) {
  const Matrix<float> x = wide_values(900, 700);
  Fp8Counts one, more;
  set_threads(1);
  const Fp8Rows a = fp8_rows(x.view(), ScaleForm::PowerOfTwo, &one);
  set_threads(3);
  const Fp8Rows b = fp8_rows(x.view(), ScaleForm::PowerOfTwo, &more);
  set_threads(available_cores());
  EXPECT_EQ(one, more);
  EXPECT_EQ(0, std::memcmp(a.codes.raw(), b.codes.raw(), a.codes.bytes()));
}

}  // namespace
}  // namespace minke

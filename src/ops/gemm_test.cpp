// Rows of the table that this machine's best one hides, and the tile kernel on a model of the tile
// unit, against the portable row.
#include "ops/gemm.h"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "ops/gemm_tiles.h"
#include "ops/gemm_vector.h"
#include "ops/target.h"
#include "ops/tile_model.h"

namespace minke::gemm {
namespace {

struct Numbers {
  std::vector<float> x, w;  // [rows, k], [columns, k]
  Numbers(Index rows, Index columns, Index k, unsigned seed) : x(rows * k), w(columns * k) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (auto* v : {&x, &w})
      for (float& e : *v) e = round_to_bf16(normal(generator));
  }
};

Index round_up(Index n, Index step) {
  return (n + step - 1) / step * step;
}

// y = start + x w^T through one block of `kernels`, y in the middle of rows of kStride.
constexpr Index kStride = 144;
std::vector<float> product(const Kernels& kernels, WeightForm form, const Numbers& numbers,
                           Index rows, Index columns, Index k, bool add) {
  const bool f32 = form == WeightForm::F32;
  const Lanes lanes = f32 ? Lanes::F32 : kernels.bf16_lanes;
  const Lanes panel_lanes = f32 ? Lanes::F32 : Lanes::Pairs;
  const Index padded = round_up(k, kStep), stride = lanes_of(lanes, padded) + 16;
  const Index panel = lanes_of(panel_lanes, padded) * kPanel;
  const Index panels = (columns + kPanel - 1) / kPanel;
  Tensor x = Tensor::zeros({rows * stride}), w = Tensor::zeros({panels * panel});
  kernels.rows[static_cast<int>(lanes)](
      {numbers.x.data(), k, rows, k, padded, x.raw(), stride, false});
  for (Index p = 0; p < panels; ++p)
    kernels.panel[static_cast<int>(panel_lanes)]({numbers.w.data() + p * kPanel * k, k,
                                                  std::min(kPanel, columns - p * kPanel), k, padded,
                                                  w.flat().data() + p * panel, 0, false});
  std::vector<float> y(rows * kStride, 0.25f);
  const Block block{x.raw(), stride,  rows,     w.raw(), panel * 4, columns,
                    padded,  nullptr, y.data(), kStride, add};
  f32 ? kernels.multiply_f32(block) : kernels.multiply_bf16(block);
  return y;
}

// Ragged numbers of outputs, up to those of the widest block of so many rows.
std::vector<Index> widths(const Kernels& kernels, WeightForm form, Index rows) {
  std::vector<Index> columns = {1, 15, 16, 17, 31, 33, 48, 63, 64};
  if (form != WeightForm::F32 && rows <= kWideRows && kernels.wide_group > kGroup)
    columns.insert(columns.end(), {65, 80, 97, 127, 128});
  return columns;
}

void expect_like_portable(const Kernels& kernels, WeightForm form) {
  unsigned seed = 0;
  for (Index rows : {1, 2, 5, 6, 7, 15, 16, 17, 31, 32, 33, 48, 49, 70})
    for (Index columns : widths(kernels, form, rows))
      for (Index k : {1, 32, 33, 97}) {
        const Numbers numbers(rows, columns, k, ++seed);
        const bool add = seed % 2 == 0;
        const auto y = product(kernels, form, numbers, rows, columns, k, add);
        const auto expected = product(kScalar, form, numbers, rows, columns, k, add);
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < kStride; ++c) {
            float size = 1;
            for (Index i = 0; c < columns && i < k; ++i)
              size += std::fabs(numbers.x[r * k + i] * numbers.w[c * k + i]);
            const float allowed = c < columns ? 2 * (k + 2) * 0x1p-24f * size : 0;
            ASSERT_NEAR(y[r * kStride + c], expected[r * kStride + c], allowed)
                << "row " << r << " column " << c << " of [" << rows << ", " << columns << "], K "
                << k;
          }
      }
}

struct PortableTable {
  float scale = 0;
  void set(float s) { scale = s; }
  void widen(const std::uint8_t* codes, Index k, std::uint16_t* to, Index) const {
    kScalar.widen({codes, 0, 1, k, scale, to, 0});
  }
};

#include "ops/gemm_tiles_body.h"

Kernels on_tile_model() {
  Kernels k = kScalar;
  k.bf16_lanes = Lanes::Pairs;
  k.multiply_bf16 = multiply_pairs_by_tiles<TileModel>;
  k.multiply_e4m3 = multiply_codes_by_tiles<TileModel, PortableTable>;
  k.e4m3_rows = kAnyRows;
  return k;
}

}  // namespace
}  // namespace minke::gemm

MINKE_TARGET_AVX512_BEGIN
namespace minke::gemm::with_vectors {
namespace {

#include "ops/gemm_amx_body.h"

}  // namespace
}  // namespace minke::gemm::with_vectors
MINKE_TARGET_AVX512_END

namespace minke::gemm {
namespace {

// Rows times codes: the bits of the same kernels on codes that were widened first.
void expect_codes_like_widened(const Kernels& kernels) {
  std::mt19937 generator(5);
  std::vector<Index> all_rows = {1, 2, 7, std::min(kernels.e4m3_rows, kTileRows)};
  if (kernels.e4m3_rows == kAnyRows) all_rows.insert(all_rows.end(), {17, 32, 33, 48, 70});
  for (const Index rows : all_rows)
    for (const Index columns : widths(kernels, WeightForm::E4m3, rows))
      for (const Index k : std::initializer_list<Index>{32, 96, 128, 160, kDeepE4m3, 1056}) {
        if (k > kDeepE4m3 && rows > kTileRows) continue;  // only a few rows come with more
        SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", K " << k);
        const Numbers numbers(rows, 1, k, static_cast<unsigned>(k + columns));
        const Index stride = lanes_of(kernels.bf16_lanes, k) + 16, panels = (columns + 15) / kPanel;
        Tensor x = Tensor::zeros({rows * stride});
        kernels.rows[static_cast<int>(kernels.bf16_lanes)](
            {numbers.x.data(), k, rows, k, k, x.raw(), stride, false});
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(panels * kPanel * k));
        for (std::uint8_t& c : codes)
          c = static_cast<std::uint8_t>(generator() % 127 + generator() % 2 * 128);
        std::vector<float> scales;
        for (Index i = 0; i < k; i += kScale) scales.push_back(0.01f * static_cast<float>(i + 3));
        Tensor widened = Tensor::zeros({panels * kPanel * k / 2});
        auto* to = static_cast<std::uint16_t*>(widened.raw());
        for (Index i = 0; i < k; i += kScale)
          kernels.widen({codes.data() + i * kPanel, k * kPanel, panels, std::min(kScale, k - i),
                         scales[static_cast<std::size_t>(i / kScale)], to + i * kPanel,
                         k * kPanel});
        for (const bool add : {false, true}) {
          std::vector<float> y(static_cast<std::size_t>(rows * kStride), 0.25f), expected = y;
          kernels.multiply_e4m3({x.raw(), stride, rows, codes.data(), k * kPanel, columns, k,
                                 scales.data(), y.data(), kStride, add});
          kernels.multiply_bf16({x.raw(), stride, rows, to, k * kPanel * 2, columns, k, nullptr,
                                 expected.data(), kStride, add});
          ASSERT_EQ(y, expected);
        }
      }
}

// Every code under usual and unusual scales: the bits of the portable form.
void expect_widened_like_portable(const Kernels& kernels) {
  std::vector<std::uint8_t> codes(256);
  for (int c = 0; c < 256; ++c) codes[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(c);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float scale : {1.0f, 0.37f, -0.0123f, 0x1p-13f, 0x1.fffffep-9f, 0x1p-100f, 0x1p-120f,
                            0x1p-140f, 0x1p100f, 0x1p119f, 3e38f, 0.0f, kInf, -kInf, NAN}) {
    std::vector<std::uint16_t> got(256), expected(256);
    kernels.widen({codes.data(), 0, 1, 256 / kPanel, scale, got.data(), 0});
    kScalar.widen({codes.data(), 0, 1, 256 / kPanel, scale, expected.data(), 0});
    for (std::size_t i = 0; i < 256; ++i) {
      const float a = static_cast<float>(std::bit_cast<BF16>(got[i]));
      const float b = static_cast<float>(std::bit_cast<BF16>(expected[i]));
      ASSERT_TRUE(got[i] == expected[i] || (std::isnan(a) && std::isnan(b)))
          << "scale " << scale << ": " << a << " instead of " << b;
    }
  }
}

// NaN and scales at the ends of the range, by way of the product.
void expect_special_codes(const Kernels& kernels) {
  constexpr Index k = 256;
  const Numbers numbers(2, 1, k, 3);
  const Index stride = lanes_of(kernels.bf16_lanes, k) + 16;
  Tensor x = Tensor::zeros({2 * stride});
  kernels.rows[static_cast<int>(kernels.bf16_lanes)](
      {numbers.x.data(), k, 2, k, k, x.raw(), stride, false});
  for (const float scale : {0.02f, 0x1p-120f, 0x1p118f, std::numeric_limits<float>::infinity()}) {
    std::vector<std::uint8_t> codes(k * kPanel, 0x38);
    codes[5 * 64 + 3] = 0x7F;   // of the second output
    codes[7 * 64 + 18] = 0xFF;  // of the sixth
    const float scales[2] = {0.5f, scale};
    std::vector<std::uint16_t> wide(codes.size());
    for (Index i = 0; i < 2; ++i)
      kernels.widen({codes.data() + i * kScale * kPanel, 0, 1, kScale, scales[i],
                     wide.data() + i * kScale * kPanel, 0});
    std::vector<float> y(2 * kPanel), expected(2 * kPanel);
    kernels.multiply_e4m3(
        {x.raw(), stride, 2, codes.data(), k * kPanel, kPanel, k, scales, y.data(), kPanel, false});
    kernels.multiply_bf16({x.raw(), stride, 2, wide.data(), k * kPanel * 2, kPanel, k, nullptr,
                           expected.data(), kPanel, false});
    for (std::size_t i = 0; i < y.size(); ++i) {
      EXPECT_TRUE(y[i] == expected[i] || (std::isnan(y[i]) && std::isnan(expected[i])))
          << "scale " << scale << ", " << i << ": " << y[i] << " instead of " << expected[i];
      EXPECT_TRUE(std::isnan(y[i]) || (i % kPanel != 1 && i % kPanel != 5));
    }
  }
}

TEST(Gemm, Avx512WithoutBf16InstructionsAgreesWithThePortableRow) {
  if (!cpu_features().avx512) GTEST_SKIP() << "no AVX-512 here";
  expect_like_portable(with_avx512(kScalar), WeightForm::Bf16);
  expect_like_portable(with_avx512(kScalar), WeightForm::F32);
  expect_widened_like_portable(with_avx512(kScalar));
  expect_codes_like_widened(with_avx512(kScalar));
  expect_special_codes(with_avx512(kScalar));
}

TEST(Gemm, EveryRowOfTheTableAgreesWithThePortableOne) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name_of(isa));
    choose_isa(isa);
    expect_like_portable(kernels(), WeightForm::F32);
    expect_like_portable(kernels(), WeightForm::Bf16);
  }
}

TEST(Gemm, TileKernelAgreesWithThePortableRowOnAModelOfTheUnit) {
  expect_like_portable(on_tile_model(), WeightForm::Bf16);
}

TEST(Gemm, TileKernelOfCodesGivesTheBitsOfWidenedOnes) {
  expect_codes_like_widened(on_tile_model());
}

TEST(Gemm, CodesOnEveryRowOfTheTableGiveTheBitsOfWidenedOnes) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name_of(isa));
    choose_isa(isa);
    expect_widened_like_portable(kernels());
    if (!kernels().multiply_e4m3) continue;
    expect_codes_like_widened(kernels());
    expect_special_codes(kernels());
  }
}

TEST(Gemm, TileKernelGivesARowTheSameBitsInAnyNumberOfRows) {
  const Index k = 130, columns = 50;
  const Numbers all(70, columns, k, 1);
  const auto y = product(on_tile_model(), WeightForm::Bf16, all, 70, columns, k, true);
  for (Index rows : {1, 15, 16, 17, 33, 69}) {
    const auto some = product(on_tile_model(), WeightForm::Bf16, all, rows, columns, k, true);
    for (Index i = 0; i < rows * kStride; ++i) ASSERT_EQ(some[i], y[i]);
  }
}

TEST(Gemm, TileModelTakesDenormalsAsZeroAndSumsPairsApart) {
  TileModel tiles;
  tiles.configure(tile_shapes(1, 1));
  std::uint16_t x[32] = {}, w[16 * 32] = {};
  x[0] = BF16(0x1p-130f).bits;  // times a large number: still nothing
  w[0] = BF16(0x1p100f).bits;
  // The later numbers give 1 + 1 by themselves; one by one onto 2^24 both would be lost.
  x[2] = x[3] = x[5] = BF16(1.0f).bits;
  w[1 * 32] = BF16(0x1p24f).bits;
  w[1 * 32 + 1] = w[2 * 32 + 1] = BF16(1.0f).bits;
  tiles.load<4>(x, 64);
  tiles.load<6>(w, 64);
  tiles.zero<0>();
  tiles.multiply_add<0, 4, 6>();
  float y[16] = {};
  tiles.store<0>(y, 64);
  EXPECT_EQ(y[0], 0x1p24f + 2);
  EXPECT_EQ(y[1], 0.0f);
}

TEST(Gemm, AgreementFindsAWrongTileUnit) {
  EXPECT_TRUE(agree_on_pairs(on_tile_model(), on_tile_model()));
  if (cpu_features().avx512_bf16) {
    EXPECT_TRUE(agree_on_pairs(on_tile_model(), with_avx512_bf16(with_avx512(kScalar))));
  }
  Kernels wrong = on_tile_model();
  wrong.multiply_bf16 = [](const Block& b) {
    multiply_by_tiles<TileModel>(b);
    b.y[b.y_stride * (b.rows - 1) + b.columns - 1] += 1.0f;
  };
  EXPECT_FALSE(agree_on_pairs(wrong, on_tile_model()));
}

TEST(Gemm, VectorsWidenCodesForTheModelOfTheTileUnit) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "no AVX512_BF16 here";
  const Kernels below = with_avx512_bf16(with_avx512(kScalar));
  const Kernels k = with_vectors::with_tiles<TileModel>(below);
  expect_like_portable(k, WeightForm::Bf16);
  expect_codes_like_widened(k);
}

TEST(Gemm, TileUnitAgreesWithItsModel) {
  if (!cpu_features().amx) GTEST_SKIP() << "no AMX here; the model stands for it";
  const Kernels amx = with_amx(with_avx512_bf16(with_avx512(kScalar)));
  EXPECT_TRUE(agree_on_pairs(amx, on_tile_model()));
  expect_like_portable(amx, WeightForm::Bf16);
  expect_codes_like_widened(amx);
}

}  // namespace
}  // namespace minke::gemm

#include "ops/latent_rows.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

const LatentRow kFp8Rows[] = {
    {DType::F8_E4M3, 1, 2},   {DType::F8_E4M3, 5, 2},    {DType::F8_E4M3, 31, 6},
    {DType::F8_E4M3, 128, 8}, {DType::F8_E4M3, 129, 64}, {DType::F8_E4M3, 512, 64},
};

// Stored and loaded again.
Matrix<float> round_trip(const LatentRow& row, const Matrix<float>& rows) {
  std::vector<std::uint32_t> memory((static_cast<std::size_t>(rows.rows) * row.bytes() + 3) / 4);
  auto* bytes = reinterpret_cast<std::byte*>(memory.data());
  store_latent_rows(row, rows.view(), bytes);
  Matrix<float> back(rows.rows, rows.columns);
  load_latent_rows(row, bytes, back.view());
  return back;
}

TEST(LatentRows, ARowOfTheReportTakes656BytesInFp8) {
  EXPECT_EQ((LatentRow{DType::F8_E4M3, 512, 64}.bytes()), 512u + 4 * 4 + 64 * 2);
  EXPECT_EQ((LatentRow{DType::BF16, 512, 64}.bytes()), 1152u);
  EXPECT_EQ((LatentRow{DType::F8_E4M3, 129, 2}.bytes()), 144u);  // 2 scales, 4, 129, to a multiple
}

TEST(LatentRows, CodesHaveAnErrorOfASixteenthAndTheRotaryPartThatOfBf16) {
  for (const LatentRow& row : kFp8Rows) {
    const Matrix<float> rows = Matrix<float>::random(7, row.width(), 1, 3);
    test::on_every_isa([&] {
      const Matrix<float> back = round_trip(row, rows);
      for (Index t = 0; t < 7; ++t) {
        for (Index tile = 0; tile < row.latent; tile += kLatentScale) {
          const Index end = std::min(row.latent, tile + kLatentScale);
          float largest = 0;
          for (Index c = tile; c < end; ++c) largest = std::max(largest, std::abs(rows(t, c)));
          // Three bits of mantissa; below 2^-6 of the unit, steps of 2^-9; 448 units are the
          // largest.
          for (Index c = tile; c < end; ++c)
            ASSERT_LE(std::abs(back(t, c) - rows(t, c)),
                      std::max(std::abs(rows(t, c)) * 0x1.01p-4f, largest / 448 * 0x1.01p-10f))
                << row.latent << " at " << t << ", " << c;
        }
        for (Index c = row.latent; c < row.width(); ++c)
          ASSERT_EQ(back(t, c), round_to_bf16(rows(t, c)));
      }
    });
  }
}

TEST(LatentRows, EveryCodeIsItsValueTimesTheScaleRoundedOnce) {
  const LatentRow row{DType::F8_E4M3, 256, 2};
  std::vector<float> memory(row.bytes() / 4);
  const float scales[] = {0.3f, 1e-4f / 448};
  memory[0] = scales[0], memory[1] = scales[1];
  auto* codes = reinterpret_cast<std::uint8_t*>(memory.data()) + row.code_offset();
  for (int c = 0; c < 256; ++c) codes[c] = static_cast<std::uint8_t>(c);
  test::on_every_isa([&] {
    Matrix<float> back(1, row.width());
    load_latent_rows(row, reinterpret_cast<const std::byte*>(memory.data()), back.view());
    for (int c = 0; c < 256; ++c) {
      E4M3 code;
      code.code = static_cast<std::uint8_t>(c);
      if ((c & 0x7f) == 0x7f) continue;  // NaN: not met, see latent_rows.h
      EXPECT_EQ(back(0, c), float(code) * scales[c / 128]) << c;
    }
  });
}

TEST(LatentRows, EveryTileHasItsOwnScale) {
  const LatentRow row{DType::F8_E4M3, 300, 2};
  Matrix<float> rows(1, row.width());
  for (Index c = 0; c < row.latent; ++c) rows(0, c) = c < 128 ? 1000.0f : c < 256 ? 1e-3f : 448.0f;
  const Matrix<float> back = round_trip(row, rows);
  for (Index c = 0; c < row.latent; ++c)
    EXPECT_NEAR(back(0, c) / rows(0, c), 1, 1e-6) << c;  // the largest of a tile is exact
}

TEST(LatentRows, WhatIsNotFiniteDoesNotBecomeANumber) {
  const LatentRow row{DType::F8_E4M3, 200, 2};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
    Matrix<float> rows = Matrix<float>::random(2, row.width(), 1);
    rows(1, 3) = bad;
    test::on_every_isa([&] {
      const Matrix<float> back = round_trip(row, rows);
      EXPECT_TRUE(std::isnan(back(1, 3)));
      EXPECT_TRUE(std::isnan(back(1, 100)));   // its tile
      EXPECT_FALSE(std::isnan(back(1, 150)));  // another one
      EXPECT_FALSE(std::isnan(back(0, 3)));
    });
  }
}

TEST(LatentRows, OtherWidthsAreRefused) {
  const LatentRow row{DType::F8_E4M3, 8, 2};
  std::vector<float> memory(100);
  auto* bytes = reinterpret_cast<std::byte*>(memory.data());
  Matrix<float> rows(2, 9);
  EXPECT_THROW(store_latent_rows(row, rows.view(), bytes), ShapeError);
  EXPECT_THROW(load_latent_rows(row, bytes, rows.view()), ShapeError);
}

}  // namespace
}  // namespace minke

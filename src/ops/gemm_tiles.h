// Blocks of BF16 products on a unit of eight tiles of 16 rows x 64 bytes, as AMX defines it.
//
// Two by two tiles of sums stay in the unit over the whole stretch of K, so that each step of 32
// loads four tiles for four products. Rows of x are loaded where they lie (a tile of fewer rows is
// configured for the last ones); a panel is a column of whole tiles. Sums of fewer than 16 columns
// go through a full tile beside. A row's sums are the same whatever the number of rows.
//
// Tiles has configure(TileShapes), load<tile>(p, stride), zero<tile>(), store<tile>(p, stride),
// multiply_add<sums, x, w>() and release(): the instructions (ops/gemm_amx.cpp) or a model of them
// (ops/tile_model.h), by which this file is tested on machines without.
#pragma once
#include <algorithm>
#include <cstring>

#include "ops/gemm.h"

namespace minke::gemm {

constexpr Index kTileRows = 16, kTileBytes = 64;

// The operand of ldtilecfg.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// Tiles 0 to 3: sums [2][2]; 4, 5: rows of x; 6, 7: panels.
inline TileShapes tile_shapes(Index upper_rows, Index lower_rows) {
  TileShapes shapes;
  const Index rows[8] = {upper_rows, upper_rows, lower_rows, lower_rows,
                         upper_rows, lower_rows, kTileRows,  kTileRows};
  for (int t = 0; t < 8; ++t) {
    shapes.row_bytes[t] = kTileBytes;
    shapes.rows[t] = static_cast<std::uint8_t>(std::max<Index>(1, rows[t]));
  }
  return shapes;
}

template <class Tiles>
class TileBlock {
 public:
  explicit TileBlock(const Block& b) : b_(b) {}

  void multiply() {
    Index upper = -1, lower = -1;
    for (row_ = 0; row_ < b_.rows; row_ += 2 * kTileRows) {
      const Index u = std::min(kTileRows, b_.rows - row_);
      const Index l = std::clamp<Index>(b_.rows - row_ - kTileRows, 0, kTileRows);
      if (u != upper || l != lower) tiles_.configure(tile_shapes(u, l));
      upper_ = upper = u;
      lower_ = lower = l;
      for (column_ = 0; column_ < b_.columns; column_ += 2 * kPanel) {
        const bool two_panels = column_ + kPanel < b_.columns;
        if (lower > 0)
          two_panels ? multiply_tiles<true, true>() : multiply_tiles<true, false>();
        else
          two_panels ? multiply_tiles<false, true>() : multiply_tiles<false, false>();
      }
    }
    tiles_.release();
  }

 private:
  template <bool kTwoRows, bool kTwoPanels>
  void multiply_tiles() {
    begin<0>(0, 0, upper_);
    if constexpr (kTwoPanels) begin<1>(0, kPanel, upper_);
    if constexpr (kTwoRows) begin<2>(kTileRows, 0, lower_);
    if constexpr (kTwoRows && kTwoPanels) begin<3>(kTileRows, kPanel, lower_);

    const Index x_bytes = b_.x_stride * 4;
    const char* x = static_cast<const char*>(b_.x) + row_ * x_bytes;
    const char* w = static_cast<const char*>(b_.w) + column_ / kPanel * b_.panel_bytes;
    for (Index k = 0; k < b_.k; k += kStep, x += kTileBytes, w += kTileRows * kTileBytes) {
      if (row_ == 0) {
        fetch(w);
        if (kTwoPanels) fetch(w + b_.panel_bytes);
      }
      tiles_.template load<4>(x, x_bytes);
      tiles_.template load<6>(w, kTileBytes);
      tiles_.template multiply_add<0, 4, 6>();
      if constexpr (kTwoPanels) {
        tiles_.template load<7>(w + b_.panel_bytes, kTileBytes);
        tiles_.template multiply_add<1, 4, 7>();
      }
      if constexpr (kTwoRows) {
        tiles_.template load<5>(x + kTileRows * x_bytes, x_bytes);
        tiles_.template multiply_add<2, 5, 6>();
        if constexpr (kTwoPanels) tiles_.template multiply_add<3, 5, 7>();
      }
    }

    end<0>(0, 0, upper_);
    if constexpr (kTwoPanels) end<1>(0, kPanel, upper_);
    if constexpr (kTwoRows) end<2>(kTileRows, 0, lower_);
    if constexpr (kTwoRows && kTwoPanels) end<3>(kTileRows, kPanel, lower_);
  }

  // The first rows meet the panels in memory.
  static void fetch(const char* w) {
    for (Index line = 0; line < kTileRows; ++line) __builtin_prefetch(w + 2048 + line * kTileBytes);
  }

  float* sums_at(Index row, Index column) const {
    return b_.y + (row_ + row) * b_.y_stride + column_ + column;
  }
  Index width(Index column) const { return std::min(kPanel, b_.columns - column_ - column); }

  template <int kTile>
  void begin(Index row, Index column, Index rows) {
    if (!b_.add) return tiles_.template zero<kTile>();
    const float* y = sums_at(row, column);
    if (width(column) == kPanel) return tiles_.template load<kTile>(y, b_.y_stride * 4);
    for (Index r = 0; r < rows; ++r)
      std::memcpy(beside_ + r * kPanel, y + r * b_.y_stride, width(column) * sizeof(float));
    tiles_.template load<kTile>(beside_, kTileBytes);
  }

  template <int kTile>
  void end(Index row, Index column, Index rows) {
    float* y = sums_at(row, column);
    if (width(column) == kPanel) return tiles_.template store<kTile>(y, b_.y_stride * 4);
    tiles_.template store<kTile>(beside_, kTileBytes);
    for (Index r = 0; r < rows; ++r)
      std::memcpy(y + r * b_.y_stride, beside_ + r * kPanel, width(column) * sizeof(float));
  }

  const Block& b_;
  Tiles tiles_;
  Index row_ = 0, column_ = 0, upper_ = 0, lower_ = 0;
  alignas(64) float beside_[kTileRows * kPanel] = {};
};

template <class Tiles>
void multiply_by_tiles(const Block& b) {
  TileBlock<Tiles>(b).multiply();
}

// Whether multiply_bf16 of a row and of another one with lanes Pairs agree on a small product.
bool agree_on_pairs(const Kernels& a, const Kernels& b);

}  // namespace minke::gemm

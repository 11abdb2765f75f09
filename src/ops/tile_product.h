// Products of pairs of BF16 numbers on a unit of eight tiles of 16 rows x 64 bytes, as AMX defines
// it.
//
// Two by two tiles of sums stay in the unit over the whole stretch of k, so that each step of 16
// pairs loads four tiles for four products. Rows of x are loaded where they lie (a tile of fewer
// rows is configured for the last ones). Sums of fewer than 16 columns go through a full tile
// beside. A row's sums are the same whatever the number of rows.
//
// Tiles has configure(TileShapes), load<tile>(p, stride), zero<tile>(), store<tile>(p, stride),
// multiply_add<sums, x, w>() and release(): the instructions (ops/amx_tiles.h) or a model of them
// (ops/tile_model.h), by which this file is tested on machines without.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/next_lines.h"
#include "tensor/view.h"

namespace minke {

constexpr Index kTileRows = 16, kTileColumns = 16, kTileBytes = 64;
constexpr Index kTilePairs = 16;  // of k in a step

// The operand of ldtilecfg.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// Tiles 0 to 3: sums [2][2]; 4, 5: rows of x; 6, 7: columns of w.
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

// Tiles 0 to 3: sums of the same rows in four columns of tiles; 4: the rows of x; 5 to 7: w.
inline TileShapes tile_shapes_of_few_rows(Index rows) {
  TileShapes shapes;
  for (int t = 0; t < 8; ++t) {
    shapes.row_bytes[t] = kTileBytes;
    shapes.rows[t] = static_cast<std::uint8_t>(t <= 4 ? rows : kTileRows);
  }
  return shapes;
}

// A tile of sums from y [rows, columns], or zeros where nothing is added to y; and back.
template <int kTile, class Tiles>
void begin_sums(Tiles& tiles, const float* y, Index y_stride, Index rows, Index columns, bool add) {
  if (!add) return tiles.template zero<kTile>();
  if (columns == kTileColumns) return tiles.template load<kTile>(y, y_stride * 4);
  alignas(64) float whole[kTileRows * kTileColumns] = {};
  for (Index r = 0; r < rows; ++r)
    std::memcpy(whole + r * kTileColumns, y + r * y_stride,
                static_cast<std::size_t>(columns) * sizeof(float));
  tiles.template load<kTile>(whole, kTileBytes);
}
template <int kTile, class Tiles>
void end_sums(Tiles& tiles, float* y, Index y_stride, Index rows, Index columns) {
  if (columns == kTileColumns) return tiles.template store<kTile>(y, y_stride * 4);
  alignas(64) float whole[kTileRows * kTileColumns];
  tiles.template store<kTile>(whole, kTileBytes);
  for (Index r = 0; r < rows; ++r)
    std::memcpy(y + r * y_stride, whole + r * kTileColumns,
                static_cast<std::size_t>(columns) * sizeof(float));
}

// y [rows, columns] = (or +=) x w over steps of 16 pairs. All but y_stride in bytes.
struct TileProduct {
  const void* x;
  Index x_stride;  // between rows; 64 a step
  Index rows;
  const void* w;
  Index w_stride, w_step, w_panel;  // between rows of a tile, steps, and columns of tiles
  Index columns, steps;
  float* y;
  Index y_stride;
  bool add;
  Index ahead = 0;            // the first rows fetch w from so far ahead, 0: not at all
  NextLines* next = nullptr;  // of which so many lines are fetched with every product of tiles
  Index next_lines = 0;
};

// What has to be done before tiles of w are read: called by the first rows for `panels` columns of
// tiles from `panel` on, a step ahead, while the unit multiplies.
struct NothingToPrepare {
  void operator()(Index /*panel*/, Index /*panels*/, Index /*step*/) const {}
};

template <class Tiles, class Prepare = NothingToPrepare>
class TileMultiplier {
 public:
  explicit TileMultiplier(const TileProduct& p, Prepare prepare = {})
      : p_(p), prepare_(std::move(prepare)) {}

  void multiply() {
    Index upper = -1, lower = -1;
    for (row_ = 0; row_ < p_.rows; row_ += 2 * kTileRows) {
      const Index u = std::min(kTileRows, p_.rows - row_);
      const Index l = std::clamp<Index>(p_.rows - row_ - kTileRows, 0, kTileRows);
      if (u != upper || l != lower) tiles_.configure(tile_shapes(u, l));
      upper_ = upper = u;
      lower_ = lower = l;
      for (column_ = 0; column_ < p_.columns; column_ += 2 * kTileColumns) {
        const bool two_columns = column_ + kTileColumns < p_.columns;
        if (lower > 0)
          two_columns ? multiply_tiles<true, true>() : multiply_tiles<true, false>();
        else
          two_columns ? multiply_tiles<false, true>() : multiply_tiles<false, false>();
      }
    }
    tiles_.release();
  }

 private:
  template <bool kTwoRows, bool kTwoColumns>
  void multiply_tiles() {
    begin<0>(0, 0, upper_);
    if constexpr (kTwoColumns) begin<1>(0, kTileColumns, upper_);
    if constexpr (kTwoRows) begin<2>(kTileRows, 0, lower_);
    if constexpr (kTwoRows && kTwoColumns) begin<3>(kTileRows, kTileColumns, lower_);

    const Index panel = column_ / kTileColumns, panels = kTwoColumns ? 2 : 1;
    const char* x = static_cast<const char*>(p_.x) + row_ * p_.x_stride;
    const char* w = static_cast<const char*>(p_.w) + panel * p_.w_panel;
    if (row_ == 0) prepare_(panel, panels, 0);
    for (Index step = 0; step < p_.steps; ++step, x += kTileBytes, w += p_.w_step) {
      if (row_ == 0 && step + 1 < p_.steps) prepare_(panel, panels, step + 1);
      if (row_ == 0 && p_.ahead > 0)
        for (Index i = 0; i < panels; ++i) fetch(w + i * p_.w_panel + p_.ahead);
      if (p_.next) p_.next->fetch(p_.next_lines * (kTwoRows ? 2 : 1) * (kTwoColumns ? 2 : 1));
      tiles_.template load<4>(x, p_.x_stride);
      tiles_.template load<6>(w, p_.w_stride);
      tiles_.template multiply_add<0, 4, 6>();
      if constexpr (kTwoColumns) {
        tiles_.template load<7>(w + p_.w_panel, p_.w_stride);
        tiles_.template multiply_add<1, 4, 7>();
      }
      if constexpr (kTwoRows) {
        tiles_.template load<5>(x + kTileRows * p_.x_stride, p_.x_stride);
        tiles_.template multiply_add<2, 5, 6>();
        if constexpr (kTwoColumns) tiles_.template multiply_add<3, 5, 7>();
      }
    }

    end<0>(0, 0, upper_);
    if constexpr (kTwoColumns) end<1>(0, kTileColumns, upper_);
    if constexpr (kTwoRows) end<2>(kTileRows, 0, lower_);
    if constexpr (kTwoRows && kTwoColumns) end<3>(kTileRows, kTileColumns, lower_);
  }

  static void fetch(const char* p) {
#pragma GCC unroll 16
    for (Index line = 0; line < kTileRows; ++line) __builtin_prefetch(p + line * kTileBytes);
  }

  template <int kTile>
  void begin(Index row, Index column, Index rows) {
    begin_sums<kTile>(tiles_, sums_at(row, column), p_.y_stride, rows, width(column), p_.add);
  }
  template <int kTile>
  void end(Index row, Index column, Index rows) {
    end_sums<kTile>(tiles_, sums_at(row, column), p_.y_stride, rows, width(column));
  }
  float* sums_at(Index row, Index column) const {
    return p_.y + (row_ + row) * p_.y_stride + column_ + column;
  }
  Index width(Index column) const {
    return std::min(kTileColumns, p_.columns - column_ - column);
  }

  const TileProduct p_;
  Prepare prepare_;
  Tiles tiles_;
  Index row_ = 0, column_ = 0, upper_ = 0, lower_ = 0;
};

}  // namespace minke

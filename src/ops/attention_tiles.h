// Products of pairs in attention (SmallProduct) on a unit of tiles.
//
// Rows of a are tiles where they lie, as those of b are, whose rows hold the pairs of one step of k
// for all columns. Where the rows of a lie in columns (probabilities) they are turned first, 32 at
// a time. What is left of k after whole steps is done on copies that end in zeros. Every element is
// one chain over k, sixteen pairs after the other from the first on, whatever the rows and columns
// beside it.
#pragma once
#include "ops/attention_kernels.h"
#include "ops/tile_product.h"

namespace minke {

// Of attention kernels: turns the rows of a.
using Transpose = void (*)(const float* const* rows, Index n_rows, Index columns, float* to,
                           Index width);

template <class Tiles>
class PairProduct {
 public:
  explicit PairProduct(const SmallProduct& p) : p_(p) {}

  void multiply(Transpose transpose) {
    const bool turn = p_.a_k != 1;
    MINKE_ASSERT(!turn || p_.k <= kMostTurned);
    for (Index row = 0; row < p_.rows; row += kRows) {
      const Index rows = std::min(kRows, p_.rows - row), whole = p_.k / kTilePairs * kTilePairs;
      if (p_.k == 0) {
        write_nothing(row, rows);
        continue;
      }
      const float* x = p_.a + row * p_.a_row;
      Index stride = p_.a_row;
      if (turn) {
        const float* columns[kMostTurned];
        for (Index k = 0; k < p_.k; ++k) columns[k] = x + k * p_.a_k;
        transpose(columns, p_.k, rows, turned_, kMostTurned);
        x = turned_;
        stride = kMostTurned;
      }
      if (whole > 0)
        run(x, stride, row, rows, 0, p_.columns, p_.b, p_.b_stride, whole / kTilePairs, p_.add);
      if (whole < p_.k) add_rest(x + whole, stride, row, rows, whole);
    }
  }

 private:
  static constexpr Index kRows = 2 * kTileRows, kColumns = 2 * kTileColumns;
  static constexpr Index kMostTurned = kKeyTile / 2;  // the keys of a tile, in pairs

  void run(const float* x, Index x_stride, Index row, Index rows, Index column, Index columns,
           const float* w, Index w_stride, Index steps, bool add) {
    constexpr Index kBytes = sizeof(float);
    TileProduct t;
    t.x = x;
    t.x_stride = x_stride * kBytes;
    t.rows = rows;
    t.w = w;
    t.w_stride = w_stride * kBytes;
    t.w_step = kTilePairs * w_stride * kBytes;
    t.w_panel = kTileColumns * kBytes;
    t.columns = columns;
    t.steps = steps;
    t.y = p_.c + row * p_.c_stride + column;
    t.y_stride = p_.c_stride;
    t.add = add;
    t.next = &next_;
    t.next_lines = kTileRows;
    TileMultiplier<Tiles>(t).multiply();
  }

  // A sum of no products.
  void write_nothing(Index row, Index rows) const {
    if (p_.add) return;
    for (Index r = row; r < row + rows; ++r) std::fill_n(p_.c + r * p_.c_stride, p_.columns, 0.0f);
  }

  void add_rest(const float* x, Index stride, Index row, Index rows, Index first) {
    const Index rest = p_.k - first;
    for (Index r = 0; r < rows; ++r)
      for (Index k = 0; k < kTilePairs; ++k)
        x_rest_[r * kTilePairs + k] = k < rest ? x[r * stride + k] : 0;
    for (Index column = 0; column < p_.columns; column += kColumns) {
      const Index columns = std::min(kColumns, p_.columns - column);
      for (Index k = 0; k < kTilePairs; ++k)
        for (Index c = 0; c < columns; ++c)
          w_rest_[k * kColumns + c] = k < rest ? p_.b[(first + k) * p_.b_stride + column + c] : 0;
      run(x_rest_, kTilePairs, row, rows, column, columns, w_rest_, kColumns, 1,
          p_.add || first > 0);
    }
  }

  const SmallProduct& p_;
  NextLines next_{p_.fetch, p_.fetch_end - p_.fetch, 1, 0};
  alignas(64) float turned_[kRows * kMostTurned];
  alignas(64) float x_rest_[kRows * kTilePairs], w_rest_[kTilePairs * kColumns];
};

}  // namespace minke

// The tile unit as its manual describes it, for tests: tiles of up to 16 rows x 64 bytes, and
// TDPBF16PS with denormals taken as and flushed to zero. For every element of the sums the products
// of the earlier and of the later numbers of the pairs are summed by themselves in the order of k,
// then together, then onto the element. (Intel 64 and IA-32 Architectures Software Developer's
// Manual, volume 2, "TDPBF16PS".)
#pragma once
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "ops/tile_product.h"

namespace minke {

class TileModel {
 public:
  void configure(const TileShapes& shapes) {
    shapes_ = shapes;
    for (int t = 0; t < 8; ++t) {
      if (shapes.rows[t] < 1 || shapes.rows[t] > 16 || shapes.row_bytes[t] > 64 ||
          shapes.row_bytes[t] % 4 != 0 || shapes.palette != 1)
        throw Error("a tile unit would refuse these shapes");
      std::memset(tiles_[t], 0, sizeof tiles_[t]);
    }
  }
  template <int kTile>
  void zero() {
    std::memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }
  template <int kTile>
  void load(const void* p, Index stride) {
    zero<kTile>();
    for (int r = 0; r < shapes_.rows[kTile]; ++r)
      std::memcpy(tiles_[kTile] + r * 64, static_cast<const char*>(p) + r * stride,
                  shapes_.row_bytes[kTile]);
  }
  template <int kTile>
  void store(void* p, Index stride) const {
    for (int r = 0; r < shapes_.rows[kTile]; ++r)
      std::memcpy(static_cast<char*>(p) + r * stride, tiles_[kTile] + r * 64,
                  shapes_.row_bytes[kTile]);
  }
  template <int kSums, int kX, int kW>
  void multiply_add() {
    const int rows = shapes_.rows[kSums], columns = shapes_.row_bytes[kSums] / 4;
    const int pairs = shapes_.row_bytes[kX] / 4;
    if (shapes_.rows[kX] != rows || shapes_.row_bytes[kW] / 4 != columns ||
        shapes_.rows[kW] != pairs)
      throw Error("a tile unit would refuse to multiply tiles of these shapes");
    for (int m = 0; m < rows; ++m)
      for (int n = 0; n < columns; ++n) {
        float sums[2] = {0, 0};
        for (int k = 0; k < pairs; ++k)
          for (int i = 0; i < 2; ++i)
            sums[i] =
                flushed(std::fma(number(kX, m, 2 * k + i), number(kW, k, 2 * n + i), sums[i]));
        float sum;
        char* at = tiles_[kSums] + m * 64 + n * 4;
        std::memcpy(&sum, at, 4);
        sum = flushed(flushed(sum) + flushed(sums[0] + sums[1]));
        std::memcpy(at, &sum, 4);
      }
  }
  void release() {}

 private:
  static float flushed(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }
  float number(int tile, int row, int column) const {
    std::uint16_t bits;
    std::memcpy(&bits, tiles_[tile] + row * 64 + column * 2, 2);
    return flushed(std::bit_cast<float>(std::uint32_t{bits} << 16));
  }

  TileShapes shapes_;
  char tiles_[8][16 * 64] = {};
};

}  // namespace minke

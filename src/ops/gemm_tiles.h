// Blocks of BF16 products on a unit of tiles: a panel is a column of whole tiles.
#pragma once
#include "ops/gemm.h"
#include "ops/tile_product.h"

namespace minke::gemm {

static_assert(kPanel == kTileColumns && kStep == 2 * kTilePairs);

constexpr Index tiles_of(Index n) {
  return (n + kTileRows - 1) / kTileRows;
}

// The block's product with weights in BF16 at w, panels of so many bytes. `next` is the block's.
inline TileProduct product_of(const Block& b, const void* w, Index panel_bytes, NextLines& next) {
  TileProduct p;
  p.x = b.x;
  p.x_stride = b.x_stride * 4;
  p.rows = b.rows;
  p.w = w;
  p.w_stride = kTileBytes;
  p.w_step = kTilePairs * kTileBytes;
  p.w_panel = panel_bytes;
  p.columns = b.columns;
  p.steps = b.k / kStep;
  p.y = b.y;
  p.y_stride = b.y_stride;
  p.add = b.add;
  p.next = &next;
  p.next_lines = next.share(tiles_of(b.rows) * tiles_of(b.columns) * p.steps);
  return p;
}

template <class Tiles>
void multiply_by_tiles(const Block& b) {
  NextLines next = b.next;
  TileProduct p = product_of(b, b.w, b.panel_bytes, next);
  p.ahead = 2048;
  TileMultiplier<Tiles>(p).multiply();
}

// Whether multiply_bf16 of a row and of another one with lanes Pairs agree on a small product.
bool agree_on_pairs(const Kernels& a, const Kernels& b);

}  // namespace minke::gemm

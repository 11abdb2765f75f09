// The instructions of the tile unit (ops/tile_product.h), written out: gcc 12's intrinsic for
// ldtilecfg tells the compiler that only 8 of the 64 bytes are read. For ops/ only, where
// cpu_features().amx.
#pragma once
#include "ops/tile_product.h"

namespace minke {

struct HardwareTiles {
  static void configure(const TileShapes& shapes) {
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
  }
  template <int kTile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static void load(const void* p, Index stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* p, Index stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSums, int kX, int kW>
  static void multiply_add() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kX), "i"(kW));
  }
  static void release() { __asm__ volatile("tilerelease"); }
};

}  // namespace minke

// What ops/gemm_amx.cpp does on the tile unit, and tests do on a model of it: vectors widen the
// codes for tiles. Included inside an AVX-512 region and an anonymous namespace.
//
// No `#pragma once`: each form has its own copy.

#include "ops/gemm_avx512_body.h"

#include "ops/gemm_tiles_body.h"

template <class Tiles>
Kernels with_tiles(Kernels k) {
  k.multiply_bf16 = multiply_pairs_by_tiles<Tiles>;
  k.multiply_e4m3 = multiply_codes_by_tiles<Tiles, CodeTable>;
  k.e4m3_rows = kAnyRows;
  k.wide_group = kGroup;
  return k;
}

// What ops/gemm_amx.cpp does on the tile unit, and tests do on a model of it: vectors widen the codes
// for tiles. Included inside an AVX-512 region and an anonymous namespace.
//
// No `#pragma once`: each form has its own copy.

#include "ops/gemm_avx512_body.h"

struct VectorTable {
  CodeTable table;
  MINKE_GEMM_MEMBER void set(float scale) { table.set(scale); }
  MINKE_GEMM_MEMBER void widen(const std::uint8_t* codes, Index k, std::uint16_t* to,
                               Index ahead) const {
    for (Index i = 0; i < k * kPanel; i += 64) {
      __builtin_prefetch(codes + i + ahead, 0, 2);
      __m512i first, second;
      table.widen(codes + i, first, second);
      _mm512_store_si512(to + i, first);
      _mm512_store_si512(to + i + 32, second);
    }
  }
};

#include "ops/gemm_tiles_body.h"

template <class Tiles>
Kernels with_tiles(Kernels k) {
  k.multiply_bf16 = multiply_pairs_by_tiles<Tiles>;
  k.multiply_e4m3 = multiply_codes_by_tiles<Tiles, VectorTable>;
  k.e4m3_rows = kAnyRows;
  k.wide_group = kGroup;
  return k;
}

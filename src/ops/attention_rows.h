// Rows of keys and values as the passes of attention read them: where one lies, and its numbers as
// FP32. For ops/ only.
#pragma once
#include <algorithm>
#include <cstring>

#include "ops/attention_kernels.h"

namespace minke {

template <class E>
const E* row_of(const KeyRows<E>& rows, Index s) {
  return rows.pages.empty()
             ? rows.block.data() + s * rows.block.stride(0)
             : rows.pages[static_cast<std::size_t>(s / kKeyTile)] + s % kKeyTile * rows.page_stride;
}

// The parts of a row in FP8.
struct Fp8Row {
  const std::byte* begin;
  const float* scales;
  const BF16* rope;
  const E4M3* codes;
};
inline Fp8Row row_of(const Fp8LatentRows& rows, Index s) {
  const std::byte* page =
      static_cast<const std::byte*>(rows.pages[static_cast<std::size_t>(s / kKeyTile)]);
  const std::byte* begin = page + static_cast<std::size_t>(s % kKeyTile) * rows.row.bytes();
  return {begin, reinterpret_cast<const float*>(begin),
          reinterpret_cast<const BF16*>(begin + rows.row.rope_offset()),
          reinterpret_cast<const E4M3*>(begin + rows.row.code_offset())};
}

// Elements from one row to the next, within a page or the block.
template <class E>
Index row_stride(const KeyRows<E>& rows) {
  return rows.pages.empty() ? rows.block.stride(0) : rows.page_stride;
}

// Whether the value is the beginning of the key.
template <class E>
bool same_rows(const KeyRows<E>& keys, const KeyRows<E>& values) {
  return row_of(keys, 0) == row_of(values, 0);
}
inline bool same_rows(const Fp8LatentRows&, const Fp8LatentRows&) {
  return true;
}

// Numbers [column, column + n) of a row.
inline void copy_row(const AttentionKernels&, const KeyRows<float>& rows, Index s, Index column,
                     Index n, float* to) {
  std::memcpy(to, row_of(rows, s) + column, static_cast<std::size_t>(n) * sizeof(float));
}
inline void copy_row(const AttentionKernels& kernels, const KeyRows<BF16>& rows, Index s,
                     Index column, Index n, float* to) {
  kernels.widen(row_of(rows, s) + column, to, n);
}
// The whole row: key and value of all heads.
inline void copy_row(const AttentionKernels& kernels, const Fp8LatentRows& rows, Index s, Index,
                     Index, float* to) {
  const Fp8Row row = row_of(rows, s);
  const Index C = rows.row.latent;
  for (Index c = 0; c < C; c += kLatentScale)
    kernels.widen_codes(row.codes + c, row.scales[c / kLatentScale], to + c,
                        std::min(kLatentScale, C - c));
  kernels.widen(row.rope, to + C, rows.row.rope);
}

}  // namespace minke

// Products of pairs of BF16 numbers by vdpbf16ps: a cache row is multiplied where it lies, without
// being widened first. It takes denormal numbers as zero.
#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "ops/attention_kernels.h"
#include "ops/target.h"

#define MINKE_LANES 16

MINKE_TARGET_AVX512_BF16_BEGIN
namespace minke::avx512_bf16 {
namespace {
#include "ops/lanes_body.h"

MINKE_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

#include "ops/attention_product_body.h"

constexpr Index kDots = 4;  // rows and columns of a block: 16 sums, 8 loads for 16 multiply-adds

// Lane 4 i + j: the sum over the lanes of x[i][j].
MINKE_INLINE Vec lane_sums(const Vec (&x)[kDots][kDots]) {
  Vec row[kDots];
#pragma GCC unroll 4
  for (Index i = 0; i < kDots; ++i) {
    const Vec first = _mm512_unpacklo_ps(x[i][0], x[i][1]) + _mm512_unpackhi_ps(x[i][0], x[i][1]);
    const Vec last = _mm512_unpacklo_ps(x[i][2], x[i][3]) + _mm512_unpackhi_ps(x[i][2], x[i][3]);
    const __m512d f = _mm512_castps_pd(first), l = _mm512_castps_pd(last);
    row[i] =
        _mm512_castpd_ps(_mm512_unpacklo_pd(f, l)) + _mm512_castpd_ps(_mm512_unpackhi_pd(f, l));
  }
  const auto fold = [](Vec a, Vec b) {
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xDD);
  };
  return fold(fold(row[0], row[1]), fold(row[2], row[3]));
}

// Columns [column, column + 4) of rows [row, row + n), n at most 4.
MINKE_INLINE void dot_block(const SmallProduct& p, Index row, Index n, Index column,
                            const char*& fetch) {
  const float *a[kDots], *b[kDots];
  for (Index i = 0; i < kDots; ++i) {
    a[i] = p.a + (row + (i < n ? i : 0)) * p.a_row;
    b[i] = p.b + (column + i) * p.b_stride;
  }
  Vec sums[kDots][kDots];
#pragma GCC unroll 4
  for (Index i = 0; i < kDots; ++i)
#pragma GCC unroll 4
    for (Index j = 0; j < kDots; ++j) sums[i][j] = all(0);
  const auto step = [&](auto load_from) {
    Vec x[kDots], y[kDots];
#pragma GCC unroll 4
    for (Index i = 0; i < kDots; ++i) x[i] = load_from(a[i]), y[i] = load_from(b[i]);
#pragma GCC unroll 4
    for (Index i = 0; i < kDots; ++i)
#pragma GCC unroll 4
      for (Index j = 0; j < kDots; ++j) sums[i][j] = multiply_add(x[i], y[j], sums[i][j]);
  };
  Index k = 0;
  for (; k + kLanes <= p.k; k += kLanes) {
    if (fetch < p.fetch_end) {
      __builtin_prefetch(fetch, 0, 2);
      fetch += 64;
    }
    step([&](const float* from) { return load(from + k); });
  }
  if (k < p.k) step([&](const float* from) { return load_some(from + k, p.k - k); });
  alignas(64) float scores[kDots * kDots];
  store(scores, lane_sums(sums));
  for (Index i = 0; i < n; ++i)
    __builtin_memcpy(p.c + (row + i) * p.c_stride + column, scores + i * kDots,
                     sizeof(float) * kDots);
}

// Sixteen rows of a and four of b stay in the first cache.
void dots(const SmallProduct& p) {
  constexpr Index kTogether = 16;
  const char* fetch = p.fetch;
  for (Index first = 0; first < p.rows; first += kTogether) {
    const Index end = first + kTogether < p.rows ? first + kTogether : p.rows;
    for (Index column = 0; column < p.columns; column += kDots)
      for (Index row = first; row < end; row += kDots)
        dot_block(p, row, end - row < kDots ? end - row : kDots, column, fetch);
  }
}

MINKE_INLINE Vec pairs_of(__m256i earlier, __m256i later) {
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_cvtepu16_epi32(earlier),
                                             _mm512_slli_epi32(_mm512_cvtepu16_epi32(later), 16)));
}

void pair_up(const float* a, const float* b, float* to, Index n) {
  for (Index i = 0; i < n; i += kLanes) {
    const Index some = n - i < kLanes ? n - i : kLanes;
    store_at(to + i, pairs_of(to_bf16(load_at(a + i, some)), to_bf16(load_at(b + i, some))), some);
  }
}

// For vpermi2w: lane 2i is word i of the first operand, lane 2i + 1 word i of the second; and the
// same of their upper halves.
alignas(64) constexpr std::uint16_t kInterleave[2][32] = {
    {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
    {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
     24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};

MINKE_INLINE __m512i words(const BF16* p, Index n) {
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((std::uint64_t{1} << n) - 1), p);
}

void interleave(const Interleaving& p) {
  const __m512i lower = _mm512_load_si512(kInterleave[0]),
                upper = _mm512_load_si512(kInterleave[1]);
  for (Index r = 0; r < p.n_rows; r += 2) {
    const BF16* a = p.rows + r * p.stride;
    const BF16* b = r + 1 < p.n_rows ? a + p.stride : a;
    float* to = p.to + r / 2 * p.to_stride;
    for (Index i = 0; i < p.columns; i += 32) {
      const Index n = p.columns - i < 32 ? p.columns - i : 32;
      const __m512i x = words(a + i, n), y = words(b + i, r + 1 < p.n_rows ? n : 0);
      store(to + i, _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, lower, y)));
      if (n > 16) store(to + i + 16, _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, upper, y)));
    }
  }
}

// 32 codes times the scale, of which n are there; the FP16 trick of attention_body.h.
MINKE_INLINE __m512i rounded_codes(const E4M3* p, Index n, Vec scale) {
  const __mmask32 there = static_cast<__mmask32>((std::uint64_t{1} << n) - 1);
  const __m512i c = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(there, p));
  const __m512i sign = _mm512_and_si512(_mm512_slli_epi16(c, 8), _mm512_set1_epi16(-0x8000));
  const __m512i rest = _mm512_and_si512(_mm512_slli_epi16(c, 7), _mm512_set1_epi16(0x3F80));
  const __m512i halves = _mm512_or_si512(sign, rest);
  const Vec low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves)) * scale;
  const Vec high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1)) * scale;
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void widen_codes(const E4M3* codes, float scale, BF16* y, Index n) {
  const Vec factor = all(scale * 256);
  for (Index i = 0; i < n; i += 32) {
    const Index some = n - i < 32 ? n - i : 32;
    const __mmask32 there = static_cast<__mmask32>((std::uint64_t{1} << some) - 1);
    _mm512_mask_storeu_epi16(y + i, there, rounded_codes(codes + i, some, factor));
  }
}

}  // namespace
}  // namespace minke::avx512_bf16
MINKE_TARGET_AVX512_BF16_END

namespace minke::avx512_bf16 {
const PairKernels pair_kernels{multiply, false, dots, pair_up, interleave, widen_codes};
}

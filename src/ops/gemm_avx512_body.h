// Vectors of 16 FP32 numbers under the names that ops/gemm_body.h wants, and E4M3 codes looked up
// in tables. Included inside an AVX-512 region and an anonymous namespace.
//
// No `#pragma once`: each form has its own copy.

using Vec = __m512;
constexpr Index kWidth = 16;
constexpr int kFullRows = 6;   // 24 sums, 4 vectors of weights, one lane of x: 29 of 32 registers
constexpr int kTallRows = 12;  // 24 sums of two panels
constexpr int panels_at_once(int rows) {
  return rows <= kFullRows ? 4 : 2;
}

MINKE_GEMM_INLINE __mmask16 first_of(Index n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
MINKE_GEMM_INLINE Vec load_all(const void* p) {
  return _mm512_loadu_ps(p);
}
MINKE_GEMM_INLINE void store_all(float* p, Vec v) {
  _mm512_storeu_ps(p, v);
}
MINKE_GEMM_INLINE void store_past_cache(float* p, Vec v) {
  _mm512_stream_ps(p, v);
}
MINKE_GEMM_INLINE Vec load_some(const float* p, Index n) {
  return _mm512_maskz_loadu_ps(first_of(n), p);
}
MINKE_GEMM_INLINE Vec load_some(const BF16* p, Index n) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_of(n), p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
MINKE_GEMM_INLINE Vec load_pairs(const BF16* p, Index n) {
  const auto some = static_cast<__mmask32>((std::uint64_t{1} << n) - 1u);
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(some, p));
}
MINKE_GEMM_INLINE void store_some(float* p, Vec v, Index n) {
  _mm512_mask_storeu_ps(p, first_of(n), v);
}
MINKE_GEMM_INLINE Vec broadcast(const char* p) {
  return _mm512_set1_ps(*reinterpret_cast<const float*>(p));
}
MINKE_GEMM_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
MINKE_GEMM_INLINE Vec as_floats(__m512i v) {
  return _mm512_castsi512_ps(v);
}
MINKE_GEMM_INLINE __m512i as_bits(Vec v) {
  return _mm512_castps_si512(v);
}
MINKE_GEMM_INLINE Vec earlier_of_pairs(Vec v) {
  return as_floats(_mm512_slli_epi32(as_bits(v), 16));
}
MINKE_GEMM_INLINE Vec later_of_pairs(Vec v) {
  return as_floats(_mm512_and_si512(as_bits(v), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

// To nearest even, NaN made quiet; the low halves are left as rubbish.
MINKE_GEMM_INLINE __m512i rounded_above(Vec v) {
  const __m512i u = as_bits(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u,
                              _mm512_set1_epi32(0x400000));
}
MINKE_GEMM_INLINE Vec rounded(Vec v) {
  return later_of_pairs(as_floats(rounded_above(v)));
}

// 32 numbers to BF16, in order.
MINKE_GEMM_INLINE __m512i narrowed(Vec a, Vec b, __m512i odd_words) {
  return _mm512_permutex2var_epi16(as_bits(a), odd_words, as_bits(b));
}
MINKE_GEMM_INLINE __m512i odd_words() {
  alignas(64) static constexpr std::uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                         23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                         45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_load_si512(kOdd);
}

// BF16(value of a code * scale) for the 128 codes without sign, as tables of high and low bytes.
struct CodeTable {
  __m512i high[2], low[2];

  MINKE_GEMM_MEMBER void set(float scale) {
    const __m512i words = odd_words();
    __m512i bf16[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Vec a = _mm512_load_ps(kCodeValues.of + 32 * i);
      const Vec b = _mm512_load_ps(kCodeValues.of + 32 * i + 16);
      const Vec s = _mm512_set1_ps(scale);
      bf16[i] = narrowed(as_floats(rounded_above(_mm512_mul_ps(a, s))),
                         as_floats(rounded_above(_mm512_mul_ps(b, s))), words);
    }
    alignas(64) static constexpr std::uint8_t kBytes[64] = {
        0,  2,  4,   6,   8,   10,  12,  14,  16,  18,  20,  22,  24,  26,  28,  30,
        32, 34, 36,  38,  40,  42,  44,  46,  48,  50,  52,  54,  56,  58,  60,  62,
        64, 66, 68,  70,  72,  74,  76,  78,  80,  82,  84,  86,  88,  90,  92,  94,
        96, 98, 100, 102, 104, 106, 108, 110, 112, 114, 116, 118, 120, 122, 124, 126};
    const __m512i even = _mm512_load_si512(kBytes);
    const __m512i odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      low[i] = _mm512_permutex2var_epi8(bf16[2 * i], even, bf16[2 * i + 1]);
      high[i] = _mm512_permutex2var_epi8(bf16[2 * i], odd, bf16[2 * i + 1]);
    }
  }
  MINKE_GEMM_MEMBER __m512i low_bytes(__m512i codes) const {
    return _mm512_permutex2var_epi8(low[0], codes, low[1]);
  }
  MINKE_GEMM_MEMBER __m512i high_bytes(__m512i codes) const {
    return _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high[0], codes, high[1]), codes,
                                     _mm512_set1_epi8(-128), 0x78);  // a ^ (b & c)
  }
  // 64 codes in the order of code_position to two rows of pairs.
  MINKE_GEMM_MEMBER void widen(const void* codes, __m512i& first, __m512i& second) const {
    __m512i c = _mm512_loadu_si512(codes);
    __asm__("" : "+v"(c));  // to be copied for the second table, not loaded again
    const __m512i l = low_bytes(c), h = high_bytes(c);
    first = _mm512_unpacklo_epi8(l, h);
    second = _mm512_unpackhi_epi8(l, h);
  }
  // k of one panel, a multiple of 4, to pairs; fetches, too, what lies so many bytes ahead.
  MINKE_GEMM_MEMBER void widen(const std::uint8_t* codes, Index k, std::uint16_t* to,
                               Index ahead) const {
    for (Index i = 0; i < k * kPanel; i += 4 * kPanel) {
      __builtin_prefetch(codes + i + ahead, 0, 2);
      __m512i first, second;
      widen(codes + i, first, second);
      _mm512_storeu_si512(to + i, first);
      _mm512_storeu_si512(to + i + 2 * kPanel, second);
    }
  }
};

// Vectors of FP32 numbers under one set of names, for the bodies of fast forms. Included inside a
// target region and an anonymous namespace, once for each form, with MINKE_LANES 1, 8 or 16;
// <immintrin.h>, <cstdint>, <bit> and "tensor/view.h" are included above the region.
//
// No `#pragma once`: each form has its own copy.

#define MINKE_INLINE static inline __attribute__((always_inline))

constexpr Index kLanes = MINKE_LANES;

#if MINKE_LANES == 16

using Vec = __m512;
using Mask = __mmask16;

MINKE_INLINE Mask first(Index n) {
  return static_cast<Mask>((1u << n) - 1u);
}
MINKE_INLINE Vec all(float x) {
  return _mm512_set1_ps(x);
}
MINKE_INLINE Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
MINKE_INLINE void store(float* p, Vec x) {
  _mm512_storeu_ps(p, x);
}
MINKE_INLINE Vec load_some(const float* p, Index n) {
  return _mm512_maskz_loadu_ps(first(n), p);
}
MINKE_INLINE void store_some(float* p, Vec x, Index n) {
  _mm512_mask_storeu_ps(p, first(n), x);
}
MINKE_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
MINKE_INLINE Vec sqrt(Vec x) {
  return _mm512_sqrt_ps(x);
}
// The second operand where either is not a number.
MINKE_INLINE Vec max(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
MINKE_INLINE Vec min(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
// value where not (x < bound), otherwise other.
MINKE_INLINE Vec unless_below(Vec x, Vec bound, Vec value, Vec other) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), other, value);
}
// 2^(n + shift) from the bits of 1.5 * 2^23 + n.
MINKE_INLINE Vec power_of_two(Vec magic, int shift) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_add_epi32(_mm512_castps_si512(magic), _mm512_set1_epi32(127 + shift)), 23));
}
MINKE_INLINE float sum(Vec x) {
  return _mm512_reduce_add_ps(x);
}
MINKE_INLINE float largest(Vec x) {
  return _mm512_reduce_max_ps(x);
}
MINKE_INLINE Vec from_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
MINKE_INLINE __m256i to_bf16(Vec x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), odd);
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  const Mask nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
}
MINKE_INLINE Vec load(const BF16* p) {
  return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
MINKE_INLINE void store(BF16* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x));
}
MINKE_INLINE Vec load_some(const BF16* p, Index n) {
  return from_bf16(_mm256_maskz_loadu_epi16(first(n), p));
}
MINKE_INLINE void store_some(BF16* p, Vec x, Index n) {
  _mm256_mask_storeu_epi16(p, first(n), to_bf16(x));
}
// The sum of the lanes' squares added to s, in double.
struct DoubleSum {
  __m512d low, high;
};
MINKE_INLINE DoubleSum no_sum() {
  return {_mm512_setzero_pd(), _mm512_setzero_pd()};
}
MINKE_INLINE void add_squares(DoubleSum& s, Vec x) {
  const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
  const __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
  s.low = _mm512_fmadd_pd(a, a, s.low);
  s.high = _mm512_fmadd_pd(b, b, s.high);
}
MINKE_INLINE double sum(const DoubleSum& s) {
  return _mm512_reduce_add_pd(_mm512_add_pd(s.low, s.high));
}
// (a0 b0 a1 b1 ..) -> (b0 a0 b1 a1 ..), and the doubling of each of 8 numbers at p.
MINKE_INLINE Vec swap_pairs(Vec x) {
  return _mm512_permute_ps(x, 0xB1);
}
MINKE_INLINE Vec load_doubled(const float* p) {
  return _mm512_permutexvar_ps(_mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0),
                               _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
// Even lanes a - b, odd lanes a + b, of products: a x -+ b y with one rounding of the sum.
MINKE_INLINE Vec turn(Vec a, Vec x, Vec b, Vec y) {
  return _mm512_fmaddsub_ps(a, x, _mm512_mul_ps(b, y));
}
MINKE_INLINE Vec turn_back(Vec a, Vec x, Vec b, Vec y) {
  return _mm512_fmsubadd_ps(a, x, _mm512_mul_ps(b, y));
}
// (a0 b0 a1 b1 ..) of the first and of the second halves of a and b.
MINKE_INLINE Vec interleave_low(Vec a, Vec b) {
  return _mm512_permutex2var_ps(
      a, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0), b);
}
MINKE_INLINE Vec interleave_high(Vec a, Vec b) {
  return _mm512_permutex2var_ps(
      a, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8), b);
}

#elif MINKE_LANES == 8

using Vec = __m256;

alignas(32) constexpr std::int32_t kFirst[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
MINKE_INLINE __m256i first(Index n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirst + 8 - n));
}
MINKE_INLINE Vec all(float x) {
  return _mm256_set1_ps(x);
}
MINKE_INLINE Vec load(const float* p) {
  return _mm256_loadu_ps(p);
}
MINKE_INLINE void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x);
}
MINKE_INLINE Vec load_some(const float* p, Index n) {
  return _mm256_maskload_ps(p, first(n));
}
MINKE_INLINE void store_some(float* p, Vec x, Index n) {
  _mm256_maskstore_ps(p, first(n), x);
}
MINKE_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
MINKE_INLINE Vec sqrt(Vec x) {
  return _mm256_sqrt_ps(x);
}
MINKE_INLINE Vec max(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}
MINKE_INLINE Vec min(Vec a, Vec b) {
  return _mm256_min_ps(a, b);
}
MINKE_INLINE Vec unless_below(Vec x, Vec bound, Vec value, Vec other) {
  return _mm256_blendv_ps(other, value, _mm256_cmp_ps(x, bound, _CMP_NLT_UQ));
}
MINKE_INLINE Vec power_of_two(Vec magic, int shift) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_add_epi32(_mm256_castps_si256(magic), _mm256_set1_epi32(127 + shift)), 23));
}
MINKE_INLINE float sum(Vec x) {
  const __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
MINKE_INLINE float largest(Vec x) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
MINKE_INLINE Vec from_bf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
MINKE_INLINE __m128i to_bf16(Vec x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
MINKE_INLINE Vec load(const BF16* p) {
  return from_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
MINKE_INLINE void store(BF16* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(x));
}
MINKE_INLINE Vec load_some(const BF16* p, Index n) {
  alignas(16) std::uint16_t some[8] = {};
  __builtin_memcpy(some, p, static_cast<std::size_t>(n) * 2);
  return from_bf16(_mm_load_si128(reinterpret_cast<const __m128i*>(some)));
}
MINKE_INLINE void store_some(BF16* p, Vec x, Index n) {
  alignas(16) std::uint16_t some[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(some), to_bf16(x));
  __builtin_memcpy(static_cast<void*>(p), some, static_cast<std::size_t>(n) * 2);
}
struct DoubleSum {
  __m256d low, high;
};
MINKE_INLINE DoubleSum no_sum() {
  return {_mm256_setzero_pd(), _mm256_setzero_pd()};
}
MINKE_INLINE void add_squares(DoubleSum& s, Vec x) {
  const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
  s.low = _mm256_fmadd_pd(a, a, s.low);
  s.high = _mm256_fmadd_pd(b, b, s.high);
}
MINKE_INLINE double sum(const DoubleSum& s) {
  const __m256d a = _mm256_add_pd(s.low, s.high);
  const __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
  return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}
MINKE_INLINE Vec swap_pairs(Vec x) {
  return _mm256_permute_ps(x, 0xB1);
}
MINKE_INLINE Vec load_doubled(const float* p) {
  return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),
                                  _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0));
}
MINKE_INLINE Vec turn(Vec a, Vec x, Vec b, Vec y) {
  return _mm256_fmaddsub_ps(a, x, _mm256_mul_ps(b, y));
}
MINKE_INLINE Vec turn_back(Vec a, Vec x, Vec b, Vec y) {
  return _mm256_fmsubadd_ps(a, x, _mm256_mul_ps(b, y));
}
MINKE_INLINE Vec interleave_low(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
MINKE_INLINE Vec interleave_high(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}

#else

using Vec = float;

MINKE_INLINE Vec all(float x) {
  return x;
}
MINKE_INLINE Vec load(const float* p) {
  return *p;
}
MINKE_INLINE void store(float* p, Vec x) {
  *p = x;
}
MINKE_INLINE Vec load_some(const float* p, Index) {
  return *p;
}
MINKE_INLINE void store_some(float* p, Vec x, Index) {
  *p = x;
}
MINKE_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return a * b + c;
}
MINKE_INLINE Vec sqrt(Vec x) {
  return __builtin_sqrtf(x);
}
MINKE_INLINE Vec max(Vec a, Vec b) {
  return a > b ? a : b;
}
MINKE_INLINE Vec min(Vec a, Vec b) {
  return a < b ? a : b;
}
MINKE_INLINE Vec unless_below(Vec x, Vec bound, Vec value, Vec other) {
  return x < bound ? other : value;
}
MINKE_INLINE Vec power_of_two(Vec magic, int shift) {
  return __builtin_bit_cast(
      float, (__builtin_bit_cast(std::uint32_t, magic) + static_cast<std::uint32_t>(127 + shift))
                 << 23);
}
MINKE_INLINE float sum(Vec x) {
  return x;
}
MINKE_INLINE float largest(Vec x) {
  return x;
}
MINKE_INLINE Vec load(const BF16* p) {
  return *p;
}
MINKE_INLINE void store(BF16* p, Vec x) {
  *p = BF16(x);
}
MINKE_INLINE Vec load_some(const BF16* p, Index) {
  return *p;
}
MINKE_INLINE void store_some(BF16* p, Vec x, Index) {
  *p = BF16(x);
}
struct DoubleSum {
  double value;
};
MINKE_INLINE DoubleSum no_sum() {
  return {0};
}
MINKE_INLINE void add_squares(DoubleSum& s, Vec x) {
  s.value += static_cast<double>(x) * static_cast<double>(x);
}
MINKE_INLINE double sum(const DoubleSum& s) {
  return s.value;
}

#endif

constexpr float kInfinity = __builtin_inff();

// body(i, n) for pieces of kLanes elements, n < kLanes for the last one.
template <class Body>
MINKE_INLINE void each_piece(Index count, Body body) {
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, count - i);
}

// What a piece loads and stores.
template <class T>
MINKE_INLINE Vec load_at(const T* p, Index n) {
  return n == kLanes ? load(p) : load_some(p, n);
}
template <class T>
MINKE_INLINE void store_at(T* p, Vec x, Index n) {
  if (n == kLanes)
    store(p, x);
  else
    store_some(p, x, n);
}

// e^x within 2 ulp: x = n ln 2 + r, a polynomial in r, times 2^n. Results below the normal range
// are 0; e^0 is 1; NaN stays NaN.
MINKE_INLINE Vec exp(Vec x) {
  const Vec low = all(-86.6f), high = all(88.8f);
  const Vec clamped = max(low, min(high, x));
  const Vec round = all(12582912.0f);  // 1.5 * 2^23: adding it leaves n in the low bits
  const Vec magic = fma(clamped, all(1.44269504f), round);
  const Vec n = magic - round;
  const Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), clamped));
  Vec p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r) + all(1.0f);
  // 2^(n-1) twice over: 2^128 alone has no FP32 code.
  return unless_below(x, low, (p + p) * power_of_two(magic, -1), all(0.0f));
}

MINKE_INLINE Vec sigmoid(Vec x) {
  return all(1.0f) / (all(1.0f) + exp(all(0.0f) - x));
}

// 4-bit weights with AVX2: products of unsigned and signed bytes are summed in 16 bits, two at a
// time, as long as nothing can overflow (32 numbers of k: 16 products of at most 15 * 127 in a
// lane), then in 32.
#include <immintrin.h>

#include "ops/int4_kernels.h"
#include "ops/target.h"

MINKE_TARGET_AVX2_BEGIN
namespace minke::int4 {
namespace {

using Ints = __m256i;
using Floats = __m256;
constexpr int kWidth = 8, kTileRows = 2, kTilePanels = 1, kRowPanels = 2;
struct Partial {
  __m256i pairs = _mm256_setzero_si256();
};

inline __attribute__((always_inline)) __m256i first_of(Index n) {
  const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), at);
}
inline __attribute__((always_inline)) Ints set_all(std::int32_t v) {
  return _mm256_set1_epi32(v);
}
inline __attribute__((always_inline)) Ints bytes_at(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline __attribute__((always_inline)) Ints low_codes(const std::uint8_t* p) {
  return _mm256_and_si256(bytes_at(p), _mm256_set1_epi8(15));
}
inline __attribute__((always_inline)) Ints high_codes(const std::uint8_t* p) {
  return _mm256_and_si256(_mm256_srli_epi16(bytes_at(p), 4), _mm256_set1_epi8(15));
}
inline __attribute__((always_inline)) Ints four(const std::int8_t* p) {
  std::int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
inline __attribute__((always_inline)) void dot(Ints&, Partial& partial, Ints codes, Ints x) {
  partial.pairs = _mm256_add_epi16(partial.pairs, _mm256_maddubs_epi16(codes, x));
}
inline __attribute__((always_inline)) void settle(Ints& sum, Partial& partial) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(partial.pairs, _mm256_set1_epi16(1)));
}
inline __attribute__((always_inline)) Floats wide_scales(const std::uint8_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline __attribute__((always_inline)) Floats scaled(float a, Floats b) {
  return _mm256_mul_ps(_mm256_set1_ps(a), b);
}
inline __attribute__((always_inline)) Floats add_product(Ints i, Floats a, Floats b) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(i), a, b);
}
inline __attribute__((always_inline)) Floats load_some(const float* p, Index n) {
  return _mm256_maskload_ps(p, first_of(n));
}
inline __attribute__((always_inline)) void store_some(float* p, Floats v, Index n) {
  _mm256_maskstore_ps(p, first_of(n), v);
}
inline __attribute__((always_inline)) Ints largest_magnitude(Ints most, Floats v) {
  const Ints bits = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7FFFFFFF));
  return _mm256_max_epi32(most, bits);
}
inline __attribute__((always_inline)) __m128i halves_max(Ints v) {
  return _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
inline __attribute__((always_inline)) std::int32_t largest_of(Ints v) {
  __m128i m = halves_max(v);
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
  return _mm_cvtsi128_si32(m);
}
inline __attribute__((always_inline)) std::int32_t sum_of(Ints v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
  return _mm_cvtsi128_si32(s);
}
inline __attribute__((always_inline)) Ints add_ints(Ints a, Ints b) {
  return _mm256_add_epi32(a, b);
}
inline __attribute__((always_inline)) Ints round_product(Floats v, float by) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(by)));
}
inline __attribute__((always_inline)) void store_bytes(std::int8_t* p, Ints v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

#include "ops/int4_body.h"

}  // namespace

Kernels with_avx2() {
  return {quantize, multiply};
}

}  // namespace minke::int4
MINKE_TARGET_AVX2_END

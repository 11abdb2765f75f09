// 4-bit weights with AVX-512 VNNI: unsigned times signed bytes, four to a lane, summed exactly.
#include <immintrin.h>

#include "ops/int4_kernels.h"
#include "ops/target.h"

MINKE_QUIET_INTRINSICS
MINKE_TARGET_BEGIN(MINKE_AVX512_NAMES, "avx512vnni")
namespace minke::int4 {
namespace {

using Ints = __m512i;
using Floats = __m512;
constexpr int kWidth = 16, kTileRows = 4, kTilePanels = 2, kRowPanels = 4;
struct Partial {};  // nothing is left open

inline __attribute__((always_inline)) __mmask16 first_of(Index n) {
  return static_cast<__mmask16>((1u << n) - 1);
}
inline __attribute__((always_inline)) Ints set_all(std::int32_t v) {
  return _mm512_set1_epi32(v);
}
inline __attribute__((always_inline)) Ints low_codes(const std::uint8_t* p) {
  return _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15));
}
inline __attribute__((always_inline)) Ints high_codes(const std::uint8_t* p) {
  return _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15));
}
inline __attribute__((always_inline)) Ints four(const std::int8_t* p) {
  std::int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
inline __attribute__((always_inline)) void dot(Ints& sum, Partial&, Ints codes, Ints x) {
  sum = _mm512_dpbusd_epi32(sum, codes, x);
}
inline __attribute__((always_inline)) void settle(Ints&, Partial&) {}
inline __attribute__((always_inline)) Floats wide_scales(const std::uint8_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline __attribute__((always_inline)) Floats scaled(float a, Floats b) {
  return _mm512_mul_ps(_mm512_set1_ps(a), b);
}
inline __attribute__((always_inline)) Floats add_product(Ints i, Floats a, Floats b) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(i), a, b);
}
inline __attribute__((always_inline)) Floats load_some(const float* p, Index n) {
  return _mm512_maskz_loadu_ps(first_of(n), p);
}
inline __attribute__((always_inline)) void store_some(float* p, Floats v, Index n) {
  _mm512_mask_storeu_ps(p, first_of(n), v);
}
inline __attribute__((always_inline)) Ints largest_magnitude(Ints most, Floats v) {
  const Ints bits = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7FFFFFFF));
  return _mm512_max_epi32(most, bits);
}
inline __attribute__((always_inline)) std::int32_t largest_of(Ints v) {
  return _mm512_reduce_max_epi32(v);
}
inline __attribute__((always_inline)) std::int32_t sum_of(Ints v) {
  return _mm512_reduce_add_epi32(v);
}
inline __attribute__((always_inline)) Ints add_ints(Ints a, Ints b) {
  return _mm512_add_epi32(a, b);
}
inline __attribute__((always_inline)) Ints round_product(Floats v, float by) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(by)));
}
inline __attribute__((always_inline)) void store_bytes(std::int8_t* p, Ints v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

#include "ops/int4_body.h"

}  // namespace

Kernels with_avx512_vnni() {
  return {quantize, multiply};
}

}  // namespace minke::int4
MINKE_TARGET_END

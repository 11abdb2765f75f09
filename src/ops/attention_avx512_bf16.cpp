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

MINKE_INLINE __m256i words(const BF16* p, Index n) {
  return _mm256_maskz_loadu_epi16(p ? first(n) : first(0), p);
}

void interleave(const BF16* a, const BF16* b, float* to, Index n) {
  for (Index i = 0; i < n; i += kLanes) {
    const Index some = n - i < kLanes ? n - i : kLanes;
    store_at(to + i, pairs_of(words(a + i, some), words(b ? b + i : b, some)), some);
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

// For vpermi2w: lane 2i is word i of the first operand, lane 2i + 1 word i of the second; and the
// same of their upper halves.
alignas(64) constexpr std::uint16_t kInterleave[2][32] = {
    {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
    {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
     24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};

void widen_codes(const CodePair& p) {
  const __m512i lower = _mm512_load_si512(kInterleave[0]),
                upper = _mm512_load_si512(kInterleave[1]);
  const Vec scale_a = all(p.scale[0] * 256), scale_b = all(p.scale[1] * 256);
  for (Index i = 0; i < p.n; i += 32) {
    const Index n = p.n - i < 32 ? p.n - i : 32;
    const __mmask32 there = static_cast<__mmask32>((std::uint64_t{1} << n) - 1);
    const __m512i a = rounded_codes(p.codes[0] + i, n, scale_a);
    _mm512_mask_storeu_epi16(p.keys[0] + i, there, a);
    __m512i b = _mm512_setzero_si512();
    if (p.codes[1]) {
      b = rounded_codes(p.codes[1] + i, n, scale_b);
      _mm512_mask_storeu_epi16(p.keys[1] + i, there, b);
    }
    const __m512i low = _mm512_permutex2var_epi16(a, lower, b);
    store_at(p.values + i, _mm512_castsi512_ps(low), n < 16 ? n : 16);
    if (n <= 16) continue;
    const __m512i high = _mm512_permutex2var_epi16(a, upper, b);
    store_at(p.values + i + 16, _mm512_castsi512_ps(high), n - 16);
  }
}

}  // namespace
}  // namespace minke::avx512_bf16
MINKE_TARGET_AVX512_BF16_END

namespace minke::avx512_bf16 {
const PairKernels pair_kernels{multiply, pair_up, interleave, widen_codes};
}

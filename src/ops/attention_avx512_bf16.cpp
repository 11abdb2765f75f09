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

}  // namespace
}  // namespace minke::avx512_bf16
MINKE_TARGET_AVX512_BF16_END

namespace minke::avx512_bf16 {
const PairKernels pair_kernels{multiply, pair_up, interleave};
}

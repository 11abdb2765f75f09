// Products and softmax of attention tiles over vectors of lanes_body.h. Included inside a target
// region after it, in the same anonymous namespace.

MINKE_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) {
  return fma(a, b, sum);
}

#include "ops/attention_product_body.h"

template <bool Masked>
MINKE_INLINE void softmax_columns(const SoftmaxStep& p, Index column) {
  const Vec scale = all(p.scale), hidden = all(-kInfinity);
  const Vec last = Masked ? load(p.last_key + column) : hidden;
  float* s = p.s + column;
  Vec top = load(p.top + column);
  const Vec old_top = top;
  for (Index key = 0; key < p.keys; ++key) {
    Vec x = load(s + key * p.width) * scale;
    if (Masked) x = unless_below(last, all(static_cast<float>(key)), x, hidden);
    top = max(top, x);
  }
  // A column that has seen nothing yet keeps minus infinity and must not meet itself in a
  // difference.
  const Vec shift = unless_below(top, all(-3.0e38f), all(0) - top, all(0));
  Vec total = all(0);
  for (Index key = 0; key < p.keys; ++key) {
    Vec e = exp(fma(load(s + key * p.width), scale, shift));
    if (Masked) e = unless_below(last, all(static_cast<float>(key)), e, all(0));
    store(s + key * p.width, e);
    total = total + e;
  }
  const Vec shrink = exp(old_top + shift);
  store(p.top + column, top);
  store(p.shrink + column, shrink);
  store(p.total + column, fma(load(p.total + column), shrink, total));
}

void softmax_step(const SoftmaxStep& p) {
  for (Index column = 0; column < p.width; column += kLanes)
    if (p.masked)
      softmax_columns<true>(p, column);
    else
      softmax_columns<false>(p, column);
}

void softmax_backward(const SoftmaxBackward& p) {
  const Vec scale = all(p.scale), lse = all(-p.lse), delta = all(p.delta);
  Index i = 0;
  for (; i + kLanes <= p.last_key + 1 && i < p.columns; i += kLanes) {
    const Vec e = exp(fma(load(p.s + i), scale, lse));
    store(p.s + i, e);
    store(p.dp + i, e * (load(p.dp + i) - delta) * scale);
  }
  for (; i < p.columns; i += kLanes) {
    alignas(64) float rank[kLanes];
    for (Index lane = 0; lane < kLanes; ++lane)
      rank[lane] = static_cast<float>(p.last_key - i - lane);
    const Vec left = load(rank), none = all(0);
    const Vec e = unless_below(left, none, exp(fma(load(p.s + i), scale, lse)), none);
    store(p.s + i, e);
    store(p.dp + i, unless_below(left, none, e * (load(p.dp + i) - delta) * scale, none));
  }
}

void blend(float factor, float* y, float factor_x, const float* x, Index n) {
  const Vec f = all(factor), g = all(factor_x);
  for (Index i = 0; i < n; i += kLanes) store(y + i, fma(load(x + i), g, load(y + i) * f));
}

float exp_of(float x) {
  alignas(64) float lanes[kLanes];
  store(lanes, exp(all(x)));
  return lanes[0];
}

void widen(const BF16* x, float* y, Index n) {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(x + i));
  if (i < n) store_some(y + i, load_some(x + i, n - i), n - i);
}

// Codes as numbers times kCodeUnit, n of a vector. The bits of a code without its sign, 7 places
// up, are an FP16 number of 2^-8 the value, subnormals included; NaN codes are not met
// (latent_rows.h).
#if MINKE_LANES == 16
constexpr float kCodeUnit = 256;
MINKE_INLINE Vec codes_at(const E4M3* p, Index n) {
  const __m256i c = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(first(n), p));
  const __m256i sign = _mm256_and_si256(_mm256_slli_epi16(c, 8), _mm256_set1_epi16(-0x8000));
  const __m256i rest = _mm256_and_si256(_mm256_slli_epi16(c, 7), _mm256_set1_epi16(0x3F80));
  return _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
}
#elif MINKE_LANES == 8
constexpr float kCodeUnit = 256;
MINKE_INLINE Vec codes_at(const E4M3* p, Index n) {
  std::uint64_t some = 0;
  __builtin_memcpy(&some, p, static_cast<std::size_t>(n));
  const __m128i c = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<std::int64_t>(some)));
  const __m128i sign = _mm_and_si128(_mm_slli_epi16(c, 8), _mm_set1_epi16(-0x8000));
  const __m128i rest = _mm_and_si128(_mm_slli_epi16(c, 7), _mm_set1_epi16(0x3F80));
  return _mm256_cvtph_ps(_mm_or_si128(sign, rest));
}
#else
constexpr float kCodeUnit = 1;
MINKE_INLINE Vec codes_at(const E4M3* p, Index) {
  return *p;
}
#endif

void widen_codes(const E4M3* codes, float scale, float* y, Index n) {
  const Vec s = all(scale * kCodeUnit);
  for (Index i = 0; i < n; i += kLanes) {
    const Index some = n - i < kLanes ? n - i : kLanes;
    store_at(y + i, codes_at(codes + i, some) * s, some);
  }
}

// kLanes rows by kLanes columns at a time: interleaving row i with row i + kLanes / 2 and writing
// the halves to 2i and 2i + 1 turns the index of an element round by one bit, log2(kLanes) times.
void transpose(const float* const* rows, Index n_rows, Index columns, float* to, Index width) {
  for (Index r = 0; r < width; r += kLanes)
    for (Index c = 0; c < columns; c += kLanes) {
      const Index n = columns - c < kLanes ? columns - c : kLanes;
      Vec x[kLanes], y[kLanes];
#pragma GCC unroll 16
      for (Index i = 0; i < kLanes; ++i)
        x[i] = r + i < n_rows ? load_at(rows[r + i] + c, n) : all(0);
#if MINKE_LANES > 1
#pragma GCC unroll 4
      for (Index half = 1; half < kLanes; half *= 2) {
#pragma GCC unroll 8
        for (Index i = 0; i < kLanes / 2; ++i) {
          y[2 * i] = interleave_low(x[i], x[i + kLanes / 2]);
          y[2 * i + 1] = interleave_high(x[i], x[i + kLanes / 2]);
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; ++i) x[i] = y[i];
      }
#else
      (void)y;
#endif
      for (Index i = 0; i < n; ++i) store(to + (c + i) * width + r, x[i]);
    }
}

constexpr AttentionKernels kKernels{kLanes, multiply, softmax_step, softmax_backward, blend,
                                    exp_of, widen,    widen_codes,  transpose,        nullptr};

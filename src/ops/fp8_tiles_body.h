// Rows of Fp8Kernels over vectors of lanes_body.h. Included inside a target region after it, in the
// same anonymous namespace. Integer work is in vectors of 32-bit lanes under gcc's vector syntax,
// where comparisons give masks of the same width. A value costs about two cycles over the lanes.
//
// No `#pragma once`: each form has its own copy.

#if MINKE_LANES > 1
using Bits = std::uint32_t __attribute__((vector_size(4 * MINKE_LANES)));
MINKE_INLINE Bits bits_of(Vec x) {
  return (Bits)x;
}
MINKE_INLINE Vec from_bits(Bits x) {
  return (Vec)x;
}
// Adds one to the lanes where `mask` holds.
template <class Mask>
MINKE_INLINE void tally(Bits& n, Mask mask) {
  n -= (Bits)mask;
}
MINKE_INLINE std::int64_t total(Bits n) {
  std::int64_t sum = 0;
  for (int lane = 0; lane < MINKE_LANES; ++lane) sum += n[lane];
  return sum;
}
#else
using Bits = std::uint32_t;
MINKE_INLINE Bits bits_of(Vec x) {
  return __builtin_bit_cast(Bits, x);
}
MINKE_INLINE Vec from_bits(Bits x) {
  return __builtin_bit_cast(float, x);
}
MINKE_INLINE void tally(Bits& n, bool mask) {
  n += mask;
}
MINKE_INLINE std::int64_t total(Bits n) {
  return n;
}
#endif

#if MINKE_LANES == 16
MINKE_INLINE Bits load_codes(const std::uint8_t* p) {
  return (Bits)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
MINKE_INLINE void store_codes(std::uint8_t* p, Bits x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x));
}
MINKE_INLINE Bits load_codes(const std::uint16_t* p) {
  return (Bits)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
MINKE_INLINE void store_codes(std::uint16_t* p, Bits x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)x));
}
#elif MINKE_LANES == 8
MINKE_INLINE Bits load_codes(const std::uint8_t* p) {
  return (Bits)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
MINKE_INLINE __m128i narrowed(Bits x) {
  return _mm_packus_epi32(_mm256_castsi256_si128((__m256i)x),
                          _mm256_extracti128_si256((__m256i)x, 1));
}
MINKE_INLINE void store_codes(std::uint8_t* p, Bits x) {
  const __m128i words = narrowed(x);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
MINKE_INLINE Bits load_codes(const std::uint16_t* p) {
  return (Bits)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
MINKE_INLINE void store_codes(std::uint16_t* p, Bits x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrowed(x));
}
#else
template <class Code>
MINKE_INLINE Bits load_codes(const Code* p) {
  return *p;
}
template <class Code>
MINKE_INLINE void store_codes(Code* p, Bits x) {
  *p = static_cast<Code>(x);
}
#endif

// The first n of kLanes codes, by way of memory.
template <class Code>
MINKE_INLINE Bits load_codes(const Code* p, Index n) {
  if (n == kLanes) return load_codes(p);
  Code some[kLanes] = {};
  __builtin_memcpy(some, p, static_cast<std::size_t>(n) * sizeof(Code));
  return load_codes(some);
}
template <class Code>
MINKE_INLINE void store_codes(Code* p, Bits x, Index n) {
  if (n == kLanes) return store_codes(p, x);
  Code some[kLanes];
  store_codes(some, x);
  __builtin_memcpy(p, some, static_cast<std::size_t>(n) * sizeof(Code));
}

constexpr float two_to(int exponent) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(exponent + 127) << 23);
}

// A floating-point format without infinity: kMantissa bits, the smallest normal number 2^kLeast,
// codes of kWidth bits of which the largest is NaN, the largest value kLargest.
template <int kMantissaBits, int kLeastExponent, int kCodeBits>
struct Format {
  static constexpr int kMantissa = kMantissaBits, kLeast = kLeastExponent;
  static constexpr int kShift = 23 - kMantissa, kSignShift = 32 - kCodeBits;
  static constexpr std::uint32_t kSign = 1u << (kCodeBits - 1), kNan = kSign - 1;
  // Exponent field 1 of the code is 2^kLeast.
  static constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(kLeast + 126) << kMantissa;
  static constexpr float kLeastNormal = two_to(kLeast), kStep = two_to(kLeast - kMantissa);
  static constexpr float kLargest = __builtin_bit_cast(float, (kNan - 1 + kRebias) << kShift);
};
using E4m3 = Format<3, -6, 8>;
using E5m6 = Format<6, -14, 12>;
constexpr float kClipped = 464;     // of E4M3: half way from 448 to 480
constexpr float kMagic = 12582912;  // 1.5 * 2^23: the unit of a number near it is 1

// |v| to a value of the format, to nearest even, at most its largest; NaN for infinity and NaN.
template <class F>
MINKE_INLINE Vec rounded_magnitude(Vec magnitude) {
  const Vec m = min(magnitude, all(F::kLargest));
  const Bits u = bits_of(m);
  constexpr std::uint32_t half = (1u << (F::kShift - 1)) - 1;
  const Bits normal = (u + half + ((u >> F::kShift) & 1u)) & ~((1u << F::kShift) - 1u);
  constexpr float magic = kMagic * F::kStep;
  const Vec small = (m + all(magic)) - all(magic);
  const Vec value = from_bits(m < all(F::kLeastNormal) ? bits_of(small) : normal);
  return from_bits(magnitude < all(kInfinity) ? bits_of(value) : bits_of(all(0.0f)) | 0x7FC00000u);
}

// The code, without its sign, of the value that rounded_magnitude gives.
template <class F>
MINKE_INLINE Bits code_of_magnitude(Vec magnitude) {
  const Vec m = min(magnitude, all(F::kLargest));
  const Bits u = bits_of(m);
  constexpr std::uint32_t half = (1u << (F::kShift - 1)) - 1 - (F::kRebias << F::kShift);
  const Bits normal = (u + half + ((u >> F::kShift) & 1u)) >> F::kShift;
  const Bits small = bits_of(m * all(1 / F::kStep) + all(kMagic)) & F::kNan;
  const Bits code = m < all(F::kLeastNormal) ? small : normal;
  return magnitude < all(kInfinity) ? code : (code & 0u) | F::kNan;
}

template <class F>
MINKE_INLINE Vec value_of_code(Bits code) {
  const Bits m = code & F::kNan;
  const Vec small = (from_bits(m | 0x4B400000u) - all(kMagic)) * all(F::kStep);
  const Bits normal = (m + F::kRebias) << F::kShift;
  const Bits value = m < (1u << F::kMantissa) ? bits_of(small) : normal;
  const Bits number = m == F::kNan ? (value | 0x7FC00000u) : value;
  return from_bits(number | (code & F::kSign) << F::kSignShift);
}

MINKE_INLINE Vec magnitude_of(Vec x) {
  return from_bits(bits_of(x) & 0x7FFFFFFFu);
}

// Zeros before and after: those that came to be are underflows.
struct Tally {
  Bits zeros{}, rounded_zeros{};
  // x, and bits that are zero where it was rounded to zero.
  inline __attribute__((always_inline)) void add(Vec x, Bits rounded) {
    tally(zeros, x == all(0.0f));
    tally(rounded_zeros, rounded == 0u);
  }
  // Lanes beyond the n values were zeros in both.
  inline __attribute__((always_inline)) void to(Fp8Counts* counts, Index n) const {
    const Index lanes = (n + kLanes - 1) / kLanes * kLanes;
    counts->values += n;
    counts->nonzero += lanes - total(zeros);
    counts->underflow += total(rounded_zeros) - total(zeros);
  }
};

constexpr float kMostScale = 0x1p119f;
std::int64_t count_clipped(const float* x, Index n, float scale) {
  if (scale < kMostScale) return 0;
  std::int64_t clipped = 0;
  for (Index i = 0; i < n; ++i) clipped += __builtin_fabsf(x[i]) / scale > kClipped;
  return clipped;
}

float largest(const float* x, Index n) {
  Vec most = all(0.0f);
  each_piece(
      n, [&](Index i, Index m)
             __attribute__((always_inline)) { most = max(magnitude_of(load_at(x + i, m)), most); });
  return largest(most);
}

// body(x, |x / scale|, i, n) for pieces of x: stores what that is rounded to, and gives bits that
// are zero where it is zero. Multiplying by the inverse of a power of two and dividing by it give
// the same number.
template <bool kExact, bool kCounted, class Body>
MINKE_INLINE void each_scaled(const float* x, Index n, float scale, Fp8Counts* counts, Body body) {
  const Vec divisor = all(scale), inverse = all(1 / scale);
  Tally seen;
  each_piece(
      n, [&](Index i, Index m) __attribute__((always_inline)) {
        const Vec v = load_at(x + i, m);
        const Bits rounded = body(v, magnitude_of(kExact ? v * inverse : v / divisor), i, m);
        if (kCounted) seen.add(v, rounded);
      });
  if (!kCounted) return;
  seen.to(counts, n);
  counts->clipped += count_clipped(x, n, scale);
}

template <class Body>
MINKE_INLINE void each_scaled(const float* x, Index n, float scale, Fp8Counts* counts, Body body) {
  const bool exact = (__builtin_bit_cast(std::uint32_t, scale) & 0x7FFFFFu) == 0;
  if (exact && counts)
    each_scaled<true, true>(x, n, scale, counts, body);
  else if (exact)
    each_scaled<true, false>(x, n, scale, counts, body);
  else if (counts)
    each_scaled<false, true>(x, n, scale, counts, body);
  else
    each_scaled<false, false>(x, n, scale, counts, body);
}

void encode(const float* x, Index n, float scale, std::uint8_t* codes, Fp8Counts* counts) {
  each_scaled(
      x, n, scale,
      counts, [=](Vec v, Vec magnitude, Index i, Index m) __attribute__((always_inline)) {
        const Bits code = code_of_magnitude<E4m3>(magnitude);
        store_codes(codes + i, code | (bits_of(v) >> 24 & 0x80u), m);
        return code;
      });
}

void decode(const std::uint8_t* codes, Index n, float scale, float* y) {
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        store_at(y + i, value_of_code<E4m3>(load_codes(codes + i, m)) * all(scale), m);
      });
}

MINKE_INLINE Vec with_sign(Vec magnitude, Vec sign) {
  return from_bits(bits_of(magnitude) | (bits_of(sign) & 0x80000000u));
}

void round(const float* x, Index n, float scale, float* y, Fp8Counts* counts) {
  each_scaled(
      x, n, scale,
      counts, [=](Vec v, Vec magnitude, Index i, Index m) __attribute__((always_inline)) {
        const Vec rounded = rounded_magnitude<E4m3>(magnitude);
        store_at(y + i, with_sign(rounded, v) * all(scale), m);
        return bits_of(rounded);
      });
}

void raise_maxima(const float* x, Index n, float* maxima) {
  each_piece(
      n, [=](Index j, Index m) __attribute__((always_inline)) {
        store_at(maxima + j, max(magnitude_of(load_at(x + j, m)), load_at(maxima + j, m)), m);
      });
}

void decode_raising(const std::uint8_t* codes, Index n, float scale, float* y, float* maxima) {
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec value = value_of_code<E4m3>(load_codes(codes + i, m)) * all(scale);
        store_at(y + i, value, m);
        store_at(maxima + i, max(magnitude_of(value), load_at(maxima + i, m)), m);
      });
}

void round_by(const float* x, Index n, const float* scales, const float* inverses, BF16* y) {
  if (inverses)
    each_piece(
        n, [=](Index j, Index m) __attribute__((always_inline)) {
          const Vec v = load_at(x + j, m), scaled = v * load_at(inverses + j, m);
          const Vec rounded = rounded_magnitude<E4m3>(magnitude_of(scaled));
          store_at(y + j, with_sign(rounded, v) * load_at(scales + j, m), m);
        });
  else
    each_piece(
        n, [=](Index j, Index m) __attribute__((always_inline)) {
          const Vec v = load_at(x + j, m), scaled = v / load_at(scales + j, m);
          store_at(y + j, with_sign(rounded_magnitude<E4m3>(magnitude_of(scaled)), v), m);
        });
}

void encode_e5m6(const float* x, Index n, float scale, std::uint16_t* codes) {
  each_scaled(
      x, n, scale,
      nullptr, [=](Vec v, Vec magnitude, Index i, Index m) __attribute__((always_inline)) {
        const Bits code = code_of_magnitude<E5m6>(magnitude);
        store_codes(codes + i, code | (bits_of(v) >> 20 & 0x800u), m);
        return code;
      });
}

void decode_e5m6(const std::uint16_t* codes, Index n, float scale, float* y) {
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        store_at(y + i, value_of_code<E5m6>(load_codes(codes + i, m)) * all(scale), m);
      });
}

constexpr Fp8Kernels kKernels = {largest,        encode,   decode,      round,      raise_maxima,
                                 decode_raising, round_by, encode_e5m6, decode_e5m6};

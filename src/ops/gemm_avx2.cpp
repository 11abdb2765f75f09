// AVX2: two vectors a panel and 16 registers, so tiles of 6 rows and one panel. E4M3 codes are
// widened by a table of mantissas, in registers where there are few rows; those of rows of x by way
// of FP16, whose bits a code is a shifted part of.
#include <immintrin.h>

#include "ops/gemm.h"
#include "ops/gemm_vector.h"
#include "ops/target.h"

MINKE_TARGET_AVX2_BEGIN
namespace minke::gemm {
namespace {

using Vec = __m256;
constexpr Index kWidth = 8;
constexpr int kFullRows = 6;
constexpr int kTallRows = kFullRows;
constexpr int panels_at_once(int rows) {
  return rows == 1 ? 4 : rows == 2 ? 2 : 1;
}

MINKE_GEMM_INLINE __m256i first_of(Index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
MINKE_GEMM_INLINE Vec load_all(const void* p) {
  return _mm256_loadu_ps(static_cast<const float*>(p));
}
MINKE_GEMM_INLINE void store_all(float* p, Vec v) {
  _mm256_storeu_ps(p, v);
}
MINKE_GEMM_INLINE void store_past_cache(float* p, Vec v) {
  _mm256_stream_ps(p, v);
}
MINKE_GEMM_INLINE Vec load_some(const float* p, Index n) {
  return n >= kWidth ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_of(n));
}
MINKE_GEMM_INLINE Vec load_some(const BF16* p, Index n) {
  BF16 some[kWidth] = {};
  if (n < kWidth) {
    __builtin_memcpy(some, p, static_cast<std::size_t>(n) * sizeof(BF16));
    p = some;
  }
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}
MINKE_GEMM_INLINE Vec load_pairs(const BF16* p, Index n) {
  BF16 some[2 * kWidth] = {};
  if (n < 2 * kWidth) {
    __builtin_memcpy(some, p, static_cast<std::size_t>(n) * sizeof(BF16));
    p = some;
  }
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
}
MINKE_GEMM_INLINE void store_some(float* p, Vec v, Index n) {
  if (n >= kWidth)
    _mm256_storeu_ps(p, v);
  else
    _mm256_maskstore_ps(p, first_of(n), v);
}
MINKE_GEMM_INLINE Vec broadcast(const char* p) {
  return _mm256_broadcast_ss(reinterpret_cast<const float*>(p));
}
MINKE_GEMM_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
MINKE_GEMM_INLINE Vec as_floats(__m256i v) {
  return _mm256_castsi256_ps(v);
}
MINKE_GEMM_INLINE __m256i as_bits(Vec v) {
  return _mm256_castps_si256(v);
}
MINKE_GEMM_INLINE Vec earlier_of_pairs(Vec v) {
  return as_floats(_mm256_slli_epi32(as_bits(v), 16));
}
MINKE_GEMM_INLINE Vec later_of_pairs(Vec v) {
  const __m256i zero = _mm256_setzero_si256();  // at hand already, as a mask would not be
  return as_floats(_mm256_blend_epi16(as_bits(v), zero, 0x55));
}

#include "ops/gemm_body.h"

// To BF16, nearest even, NaN made quiet; held as FP32.
MINKE_GEMM_INLINE Vec rounded(Vec v) {
  const __m256i u = as_bits(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  return later_of_pairs(
      _mm256_blendv_ps(as_floats(up), as_floats(quiet), _mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
MINKE_GEMM_INLINE Vec pairs_along(Vec a, Vec b) {
  const __m256i words =
      _mm256_packus_epi32(_mm256_srli_epi32(as_bits(a), 16), _mm256_srli_epi32(as_bits(b), 16));
  return as_floats(_mm256_permute4x64_epi64(words, 0xD8));
}
MINKE_GEMM_INLINE Vec pairs_across(Vec a, Vec b) {
  return as_floats(_mm256_or_si256(as_bits(b), _mm256_srli_epi32(as_bits(a), 16)));
}

MINKE_GEMM_INLINE void transpose(Vec (&v)[8]) {
  Vec t[8], d[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      d[4 * i + 2 * j] = _mm256_shuffle_ps(t[4 * i + j], t[4 * i + j + 2], 0x44);
      d[4 * i + 2 * j + 1] = _mm256_shuffle_ps(t[4 * i + j], t[4 * i + j + 2], 0xEE);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm256_permute2f128_ps(d[j], d[4 + j], 0x20);
    v[4 + j] = _mm256_permute2f128_ps(d[j], d[4 + j], 0x31);
  }
}

#include "ops/gemm_layout_body.h"

// 8 codes, the value times scale. The bits of the code without its sign, 7 places up, are an FP16
// number of 2^-8 the value, subnormals included.
MINKE_GEMM_INLINE Vec values_of(const std::uint8_t* codes) {
  const __m256i c = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  const __m256i magnitude = _mm256_and_si256(c, _mm256_set1_epi32(0x7F));
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(c, _mm256_set1_epi32(0x80)), 24);
  const __m256i halves = _mm256_slli_epi32(magnitude, 7);
  const __m128i half =
      _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  const Vec value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
  const Vec nan = as_floats(_mm256_set1_epi32(0x7FC00000));
  const __m256i is_nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7F));
  return _mm256_or_ps(_mm256_blendv_ps(value, nan, as_floats(is_nan)), as_floats(sign));
}

// BF16(value of a code * scale). While neither end of E4M3's range leaves that of BF16's normal
// numbers, eight mantissas are rounded alike under every exponent, which is then only added.
constexpr float kLeastScale = 0x1p-100f, kGreatestScale = 0x1p100f;
bool has_table(float scale) {
  const float size = scale < 0 ? -scale : scale;
  return size >= kLeastScale && size <= kGreatestScale;  // not NaN
}
struct CodeTable {
  __m256i low, high;  // bytes of codes 0 to 7, then of 8 to 15 less their exponent

  MINKE_GEMM_MEMBER void set(float scale) {
    const Vec s = _mm256_set1_ps(scale);
    const auto bits = [&](const float* values) {
      return _mm256_srli_epi32(as_bits(rounded(_mm256_mul_ps(load_all(values), s))), 16);
    };
    const __m256i small = bits(kCodeValues.of);
    const __m256i normal = _mm256_sub_epi32(bits(kCodeValues.of + 8), _mm256_set1_epi32(1 << 7));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(small, normal), 0xD8);
    const __m256i l = _mm256_and_si256(words, _mm256_set1_epi16(0xFF));
    const __m256i h = _mm256_srli_epi16(words, 8);
    low = _mm256_permute4x64_epi64(_mm256_packus_epi16(l, l), 0x88);
    high = _mm256_permute4x64_epi64(_mm256_packus_epi16(h, h), 0x88);
  }
  // 32 codes in the order of code_position to two rows of pairs. Where NaN is not looked for, it
  // shows as a magnitude of 0x7F in `greatest`, of which each byte becomes the greatest so far.
  template <bool kNaN>
  MINKE_GEMM_MEMBER void widen(const void* codes, __m256i& first, __m256i& second,
                               __m256i& greatest) const {
    const __m256i c = _mm256_loadu_si256(static_cast<const __m256i*>(codes));
    const __m256i magnitude = _mm256_and_si256(c, _mm256_set1_epi8(0x7F));
    // Below 8 the code itself, else 8 + its mantissa, in the lower four bits.
    const __m256i entry =
        _mm256_or_si256(magnitude, _mm256_min_epu8(magnitude, _mm256_set1_epi8(8)));
    __m256i l = _mm256_shuffle_epi8(low, entry), h = _mm256_shuffle_epi8(high, entry);
    if (kNaN) {  // with its exponent, 15, this makes BF16's
      const __m256i is_nan = _mm256_cmpeq_epi8(magnitude, _mm256_set1_epi8(0x7F));
      l = _mm256_blendv_epi8(l, _mm256_set1_epi8(0x40), is_nan);
      h = _mm256_blendv_epi8(h, _mm256_set1_epi8(0x78), is_nan);
    } else {
      greatest = _mm256_max_epu8(greatest, magnitude);
    }
    const __m256i zero = _mm256_setzero_si256();
    first = with_exponent(_mm256_unpacklo_epi8(l, h), _mm256_unpacklo_epi8(zero, c));
    second = with_exponent(_mm256_unpackhi_epi8(l, h), _mm256_unpackhi_epi8(zero, c));
  }
  // k of one panel, a multiple of 4, to pairs; fetches, too, what lies so many bytes ahead.
  MINKE_GEMM_MEMBER void widen(const std::uint8_t* codes, Index k, std::uint16_t* to,
                               Index ahead) const {
    for (Index i = 0; i < k * kPanel; i += 4 * kPanel) {
      __builtin_prefetch(codes + i + ahead, 0, 2);
#pragma GCC unroll 2
      for (Index half = 0; half < 2; ++half) {
        __m256i first, second, unused;
        widen<true>(codes + i + half * 32, first, second, unused);
        auto* pairs = reinterpret_cast<__m256i*>(to + i + half * 16);
        _mm256_storeu_si256(pairs, first);
        _mm256_storeu_si256(pairs + 2, second);
      }
    }
  }

 private:
  // `codes`: in the upper bytes. The sign stays, the exponent moves to BF16's.
  MINKE_GEMM_MEMBER static __m256i with_exponent(__m256i words, __m256i codes) {
    const __m256i moved = _mm256_and_si256(_mm256_srai_epi16(codes, 4),
                                           _mm256_set1_epi16(static_cast<short>(0x8780)));
    return _mm256_add_epi16(words, moved);
  }
};

void widen(const CodePanels& f) {
  if (!has_table(f.scale)) return kScalar.widen(f);
  widen_panels<CodeTable>(f);
}

// Lanes of x are BF16 numbers held as FP32, as in WidenedWeights. NaN, which weights hardly ever
// hold, is looked for when a tile is done, or by the patient ones in every code.
template <bool kNaN>
struct CodeWeights {
  static constexpr bool kScaled = true, kRefuses = !kNaN;
  static constexpr int kUnits = 4, kBytes = 64, kLanesPerK2 = 2, kTogether = 1;
  static constexpr int panels(int rows) { return rows <= 2 ? 2 : 1; }
  using Patient = CodeWeights<true>;
  CodeTable table;
  __m256i greatest = {};  // magnitudes of codes
  MINKE_GEMM_MEMBER bool refuses() const {
    const __m256i nan = _mm256_set1_epi8(0x7F);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(greatest, nan)) != 0;
  }
  MINKE_GEMM_MEMBER void begin(float scale) { table.set(scale); }
  MINKE_GEMM_MEMBER void load(const char* p, Vec (&v)[4][2]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      __m256i first, second;
      table.widen<kNaN>(p + i * 32, first, second, greatest);
      v[0][i] = earlier_of_pairs(as_floats(first));
      v[1][i] = later_of_pairs(as_floats(first));
      v[2][i] = earlier_of_pairs(as_floats(second));
      v[3][i] = later_of_pairs(as_floats(second));
    }
  }
  static Vec multiply(Vec a, Vec v, Vec sum) {
    return fma(a, v, sum);
  }
};
constexpr int kCodeRows = 4;

// Under a scale without a table the codes are widened first, a stretch of a panel at a time.
void multiply_codes(const Block& b) {
  bool tables = true;
  for (Index k = 0; k < b.k; k += kScale) tables = tables && has_table(b.scales[k / kScale]);
  if (tables) return multiply_block<CodeWeights<false>, kCodeRows, kCodeRows>(b);
  alignas(64) std::uint16_t wide[kScale * kPanel];
  for (Index c = 0; c < b.columns; c += kPanel)
    for (Index k = 0; k < b.k; k += kScale) {
      const Index stretch = least(kScale, b.k - k);
      const auto* codes = static_cast<const std::uint8_t*>(b.w) + c / kPanel * b.panel_bytes;
      widen({codes + k * kPanel, 0, 1, stretch, b.scales[k / kScale], wide, 0});
      multiply_block<WidenedWeights, kFullRows>(
          {static_cast<const float*>(b.x) + k, b.x_stride, b.rows, wide, stretch * kPanel * 2,
           least(kPanel, b.columns - c), stretch, nullptr, b.y + c, b.y_stride, b.add || k > 0});
    }
}

void code_rows(const CodeLayout& f) {
  for (Index r = 0; r < f.rows; ++r) {
    float* row = static_cast<float*>(f.to) + r * f.to_stride;
    const float* scales = f.scales ? f.scales + r * f.scale_stride : nullptr;
    for (Index i = 0; i < f.padded_k; i += kWidth) {
      std::uint8_t last[kWidth] = {};
      const std::uint8_t* from = f.codes + r * f.stride + i;
      if (i + kWidth > f.k) {
        for (Index j = 0; i + j < f.k; ++j) last[j] = from[j];
        from = last;
      }
      const Vec scale = _mm256_set1_ps(scales ? scales[i / kScale] : 1.0f);
      store_all(row + i, _mm256_mul_ps(values_of(from), scale));
    }
  }
}

void add_scaled(const float* sums, Index sums_stride, const float* row_scales, Index row_stride,
                float scale, Index rows, Index columns, float* y, Index y_stride, bool add) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += kWidth) {
      const Index n = least(kWidth, columns - c);
      Vec value = _mm256_mul_ps(_mm256_mul_ps(load_some(sums + r * sums_stride + c, n),
                                              _mm256_set1_ps(row_scales[r * row_stride])),
                                _mm256_set1_ps(scale));
      __asm__("" : "+x"(value));  // rounded here: not to be fused with the addition
      float* to = y + r * y_stride + c;
      store_some(to, add ? _mm256_add_ps(load_some(to, n), value) : value, n);
    }
}

void add_outer_scaled(const float* sums, Index sums_stride, const float* row_scales,
                      const float* column_scales, Index rows, Index columns, float* y,
                      Index y_stride) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += kWidth) {
      const Index n = least(kWidth, columns - c);
      const Vec row_scaled =
          _mm256_mul_ps(load_some(sums + r * sums_stride + c, n), _mm256_set1_ps(row_scales[r]));
      Vec value = _mm256_mul_ps(row_scaled, load_some(column_scales + c, n));
      __asm__("" : "+x"(value));  // rounded here: not to be fused with the addition
      float* to = y + r * y_stride + c;
      store_some(to, _mm256_add_ps(load_some(to, n), value), n);
    }
}

}  // namespace

Kernels with_avx2(Kernels k) {
  k = with_layouts(k);
  k.bf16_lanes = Lanes::Rounded;
  k.multiply_f32 = multiply_block<F32Weights, kFullRows>;
  k.multiply_bf16 = multiply_block<WidenedWeights, kFullRows>;
  k.multiply_e4m3 = multiply_codes;
  k.e4m3_rows = kCodeRows;
  k.widen = widen;
  k.code_rows[1] = code_rows;
  k.add_scaled = add_scaled;
  k.add_outer_scaled = add_outer_scaled;
  return k;
}

}  // namespace minke::gemm
MINKE_TARGET_AVX2_END

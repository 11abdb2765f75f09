// AVX-512: FP32 by multiply-add, BF16 by widening both sides, E4M3 widened by table, in registers
// where there are few rows.
// Large products are bound by the two multiply-adds a cycle, one-row products by memory.
#include "ops/gemm.h"

#include <immintrin.h>

#include "ops/gemm_vector.h"
#include "ops/target.h"

MINKE_TARGET_AVX512_BEGIN
namespace minke::gemm {
namespace {

#include "ops/gemm_avx512_body.h"

#include "ops/gemm_body.h"

MINKE_GEMM_INLINE Vec pairs_along(Vec a, Vec b) {
  return as_floats(narrowed(a, b, odd_words()));
}
MINKE_GEMM_INLINE Vec pairs_across(Vec a, Vec b) {
  return as_floats(_mm512_or_si512(as_bits(b), _mm512_srli_epi32(as_bits(a), 16)));
}

// Pairs, fours, eights and halves of rows change places in turn.
MINKE_GEMM_INLINE void transpose(Vec (&v)[16]) {
  __m512d d[16];
  Vec t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[4 * i + j]), b = _mm512_castps_pd(t[4 * i + j + 2]);
      d[4 * i + 2 * j] = _mm512_unpacklo_pd(a, b);
      d[4 * i + 2 * j + 1] = _mm512_unpackhi_pd(a, b);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Vec a = _mm512_castpd_ps(d[j]), b = _mm512_castpd_ps(d[4 + j]);
    const Vec c = _mm512_castpd_ps(d[8 + j]), e = _mm512_castpd_ps(d[12 + j]);
    const Vec ab_even = _mm512_shuffle_f32x4(a, b, 0x88), ab_odd = _mm512_shuffle_f32x4(a, b, 0xDD);
    const Vec ce_even = _mm512_shuffle_f32x4(c, e, 0x88), ce_odd = _mm512_shuffle_f32x4(c, e, 0xDD);
    v[j] = _mm512_shuffle_f32x4(ab_even, ce_even, 0x88);
    v[4 + j] = _mm512_shuffle_f32x4(ab_odd, ce_odd, 0x88);
    v[8 + j] = _mm512_shuffle_f32x4(ab_even, ce_even, 0xDD);
    v[12 + j] = _mm512_shuffle_f32x4(ab_odd, ce_odd, 0xDD);
  }
}

#include "ops/gemm_layout_body.h"

// Lanes of x are BF16 numbers held as FP32, as in WidenedWeights.
struct CodeWeights {
  static constexpr bool kScaled = true, kRefuses = false;
  static constexpr int kUnits = 4, kBytes = 64, kLanesPerK2 = 2, kTogether = 1;
  static constexpr int panels(int rows) { return rows <= kWideRows ? 8 : rows <= 4 ? 4 : 2; }
  CodeTable table;
  MINKE_GEMM_MEMBER void begin(float scale) { table.set(scale); }
  MINKE_GEMM_MEMBER void load(const char* p, Vec (&v)[4][1]) const {
    __m512i first, second;
    table.widen(p, first, second);
    v[0][0] = earlier_of_pairs(as_floats(first));
    v[1][0] = later_of_pairs(as_floats(first));
    v[2][0] = earlier_of_pairs(as_floats(second));
    v[3][0] = later_of_pairs(as_floats(second));
  }
  static Vec multiply(Vec a, Vec v, Vec sum) { return fma(a, v, sum); }
};
constexpr int kCodeRows = 8;

// E4M3 of a magnitude in FP32 that is not NaN: to nearest even, at most 448.
MINKE_GEMM_INLINE __m512i code_of(Vec v) {
  const __m512i u = as_bits(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFFF)));
  const __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(up, 20), _mm512_set1_epi32(120 << 3));
  const __m512i small = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(512.0f)));
  const __mmask16 is_small = _mm512_cmp_ps_mask(v, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
  const __mmask16 is_large = _mm512_cmp_ps_mask(v, _mm512_set1_ps(448.0f), _CMP_GE_OQ);
  const __m512i code = _mm512_mask_mov_epi32(normal, is_small, small);
  return _mm512_mask_mov_epi32(code, is_large, _mm512_set1_epi32(0x7E));
}

float quantize(const float* x, Index k, std::uint8_t* codes) {
  const Vec magnitude_bits = as_floats(_mm512_set1_epi32(0x7FFFFFFF));
  Vec largest = _mm512_set1_ps(1e-4f);
  for (Index i = 0; i < k; i += 16)  // the second operand stays where the first is NaN
    largest =
        _mm512_max_ps(_mm512_and_ps(load_some(x + i, least(16, k - i)), magnitude_bits), largest);
  const float scale = _mm512_reduce_max_ps(largest) / 448.0f;
  for (Index i = 0; i < k; i += 16) {
    const Index n = least(16, k - i);
    const Vec v = _mm512_div_ps(load_some(x + i, n), _mm512_set1_ps(scale));
    const __m512i sign =
        _mm512_and_si512(_mm512_srli_epi32(as_bits(v), 24), _mm512_set1_epi32(128));
    __m512i code = code_of(_mm512_and_ps(v, magnitude_bits));
    code = _mm512_mask_mov_epi32(code, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                                 _mm512_set1_epi32(0x7F));
    _mm512_mask_cvtepi32_storeu_epi8(codes + i, first_of(n), _mm512_or_si512(code, sign));
  }
  return scale;
}

// A number times 2^e is its bits plus e in the exponent, but for zero and NaN.
template <Lanes kLanes>
void code_rows(const CodeLayout& f) {
  CodeTable table;
  table.set(1.0f);
  const __m512i magnitude = _mm512_set1_epi16(0x7F);
  for (Index r = 0; r < f.rows; ++r) {
    float* row = static_cast<float*>(f.to) + r * f.to_stride;
    const float* scales = f.scales ? f.scales + r * f.scale_stride : nullptr;
    for (Index i = 0; i < f.padded_k; i += 32) {
      const Index n = within(f.k - i, 32);
      const __mmask32 there = static_cast<__mmask32>((std::uint64_t{1} << n) - 1);
      const __m256i c = _mm256_maskz_loadu_epi8(there, f.codes + r * f.stride + (n > 0 ? i : 0));
      const __m512i wide = _mm512_cvtepu8_epi16(c);
      const __m512i twice = _mm512_or_si512(wide, _mm512_slli_epi16(wide, 8));
      __m512i bf16 = _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAAull, table.low_bytes(twice),
                                            table.high_bytes(twice));
      if (scales) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(scales[i / kScale]);
        const __m512i exponent = _mm512_set1_epi16(static_cast<short>((bits >> 16) - 0x3F80));
        const __m512i m = _mm512_and_si512(wide, magnitude);
        const __mmask32 number =
            _mm512_test_epi16_mask(m, m) & _mm512_cmpneq_epi16_mask(m, magnitude);
        bf16 = _mm512_mask_add_epi16(bf16, number, bf16, exponent);
      }
      if constexpr (kLanes == Lanes::Pairs) {
        store_all(row + i / 2, as_floats(bf16));
      } else {
        const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(bf16));
        const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bf16, 1));
        store_all(row + i, as_floats(_mm512_slli_epi32(a, 16)));
        store_all(row + i + 16, as_floats(_mm512_slli_epi32(b, 16)));
      }
    }
  }
}

void add_scaled(const float* sums, Index sums_stride, const float* row_scales, Index row_stride,
                float scale, Index rows, Index columns, float* y, Index y_stride, bool add) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += 16) {
      const Index n = least(16, columns - c);
      Vec value = _mm512_mul_ps(_mm512_mul_ps(load_some(sums + r * sums_stride + c, n),
                                              _mm512_set1_ps(row_scales[r * row_stride])),
                                _mm512_set1_ps(scale));
      __asm__("" : "+v"(value));  // rounded here: not to be fused with the addition
      float* to = y + r * y_stride + c;
      store_some(to, add ? _mm512_add_ps(load_some(to, n), value) : value, n);
    }
}

void add_outer_scaled(const float* sums, Index sums_stride, const float* row_scales,
                      const float* column_scales, Index rows, Index columns, float* y,
                      Index y_stride) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; c += kWidth) {
      const Index n = least(kWidth, columns - c);
      const Vec row_scaled =
          _mm512_mul_ps(load_some(sums + r * sums_stride + c, n), _mm512_set1_ps(row_scales[r]));
      Vec value = _mm512_mul_ps(row_scaled, load_some(column_scales + c, n));
      __asm__("" : "+v"(value));  // rounded here: not to be fused with the addition
      float* to = y + r * y_stride + c;
      store_some(to, _mm512_add_ps(load_some(to, n), value), n);
    }
}

}  // namespace

Kernels with_avx512(Kernels k) {
  k = with_layouts(k);
  k.bf16_lanes = Lanes::Rounded;
  k.multiply_f32 = multiply_block<F32Weights, kFullRows>;
  k.multiply_bf16 = multiply_block<WidenedWeights, kFullRows>;
  k.multiply_e4m3 = multiply_block<CodeWeights, kCodeRows, kCodeRows>;
  k.e4m3_rows = kCodeRows;
  k.wide_group = 2 * kGroup;
  k.widen = widen_panels<CodeTable>;
  k.quantize = quantize;
  k.code_rows[1] = code_rows<Lanes::Rounded>;
  k.code_rows[2] = code_rows<Lanes::Pairs>;
  k.add_scaled = add_scaled;
  k.add_outer_scaled = add_outer_scaled;
  return k;
}

}  // namespace minke::gemm
MINKE_TARGET_AVX512_END

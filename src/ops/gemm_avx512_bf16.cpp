// AVX512_BF16: vdpbf16ps on pairs of k; codes are widened in registers where a few rows leave them
// free, so that a one-row product is bound by reading its codes.
#include "ops/gemm.h"

#include <immintrin.h>

#include "ops/gemm_vector.h"
#include "ops/target.h"

MINKE_TARGET_AVX512_BF16_BEGIN
namespace minke::gemm {
namespace {

#include "ops/gemm_avx512_body.h"

#include "ops/gemm_body.h"

struct PairWeights {
  static constexpr bool kScaled = false, kRefuses = false;
  static constexpr int kUnits = 1, kBytes = 64, kLanesPerK2 = 1;
  static constexpr int panels(int rows) { return rows <= kWideRows ? 8 : panels_at_once(rows); }
  void begin(float) {}
  void load(const char* p, Vec (&v)[1][1]) const { v[0][0] = load_all(p); }
  static Vec multiply(Vec a, Vec v, Vec sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)as_bits(a), (__m512bh)as_bits(v));
  }
};

struct CodeWeights {
  static constexpr bool kScaled = true, kRefuses = false;
  static constexpr int kUnits = 2, kBytes = 64, kLanesPerK2 = 1, kTogether = 2;
  // 20 sums, 4 vectors of tables and what widening needs.
  static constexpr int panels(int rows) { return rows <= kWideRows ? 8 : rows <= 5 ? 4 : 2; }
  CodeTable table;
  MINKE_GEMM_MEMBER void begin(float scale) { table.set(scale); }
  MINKE_GEMM_MEMBER void load(const char* p, Vec (&v)[2][1]) const {
    __m512i first, second;
    table.widen(p, first, second);
    v[0][0] = as_floats(first);
    v[1][0] = as_floats(second);
  }
  static Vec multiply(Vec a, Vec v, Vec sum) { return PairWeights::multiply(a, v, sum); }
};

constexpr int kCodeRows = 10;

}  // namespace

Kernels with_avx512_bf16(Kernels k) {
  k.bf16_lanes = Lanes::Pairs;
  k.multiply_bf16 = multiply_block<PairWeights, kFullRows>;
  k.multiply_e4m3 = multiply_block<CodeWeights, kCodeRows, kCodeRows>;
  k.e4m3_rows = kCodeRows;
  return k;
}

}  // namespace minke::gemm
MINKE_TARGET_AVX512_BF16_END

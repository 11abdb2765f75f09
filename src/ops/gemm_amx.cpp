// AMX: TDPBF16PS on 16 x 16 sums. Bound by loading tiles: from L1 they come at four fifths of the
// rate of a loop that never reloads.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/amx_tiles.h"
#include "ops/gemm_tiles.h"
#include "ops/gemm_vector.h"
#include "ops/target.h"

MINKE_TARGET_AVX512_BEGIN
namespace minke::gemm {
namespace {

#include "ops/gemm_amx_body.h"

}  // namespace
}  // namespace minke::gemm
MINKE_TARGET_AVX512_END

namespace minke::gemm {

Kernels with_amx(Kernels k) {
  return with_tiles<HardwareTiles>(k);
}

bool agree_on_pairs(const Kernels& a, const Kernels& b) {
  constexpr Index kRows = 21, kColumns = 45, kDeep = 96, kPanels = 3;
  std::vector<std::uint16_t> x(kRows * kDeep), w(kPanels * kPanel * kDeep);
  std::uint32_t state = 1;
  for (auto* numbers : {&x, &w})
    for (std::uint16_t& v : *numbers) {
      state = state * 1664525u + 1013904223u;
      v = BF16(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f).bits;
    }
  std::vector<float> y[2];
  for (int i = 0; i < 2; ++i) {
    y[i].assign(kRows * kColumns, 0.5f);
    (i == 0 ? a : b)
        .multiply_bf16({x.data(), kDeep / 2, kRows, w.data(), kDeep * kPanel * 2, kColumns, kDeep,
                        nullptr, y[i].data(), kColumns, true});
  }
  // Sums of 96 products below 1.
  for (std::size_t i = 0; i < y[0].size(); ++i)
    if (!(std::fabs(y[0][i] - y[1][i]) <= 2 * kDeep * kDeep * 0x1p-24f)) return false;
  return true;
}

}  // namespace minke::gemm

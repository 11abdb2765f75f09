#include "ops/quantize.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "ops/gemm.h"

namespace minke {

void quantize_rows(View2<const float> x, View2<E4M3> codes, View2<float> scales) {
  const Index T = x.extent(0), K = x.extent(1), tiles = (K + gemm::kScale - 1) / gemm::kScale;
  if (codes.extents() != x.extents() || scales.extent(0) != T || scales.extent(1) != tiles)
    throw ShapeError(fmt::format(
        "x [{}, {}] cannot be quantised to codes [{}, {}] and scales [{}, {}]; expected codes like "
        "x and scales [{}, {}]",
        T, K, codes.extent(0), codes.extent(1), scales.extent(0), scales.extent(1), T, tiles));
  const auto quantize = gemm::kernels().quantize;
  const auto rows = [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index tile = 0; tile < tiles; ++tile) {
        const Index k = tile * gemm::kScale;
        scales.data()[t * scales.stride(0) + tile] =
            quantize(x.data() + t * x.stride(0) + k, std::min(gemm::kScale, K - k),
                     reinterpret_cast<std::uint8_t*>(codes.data() + t * codes.stride(0) + k));
      }
  };
  constexpr Index kOfTask = 65536;  // numbers: about 20 us
  if (T * K <= kOfTask)
    rows(0, T);
  else
    parallel_ranges(T, std::max<Index>(1, kOfTask / K), rows);
}

}  // namespace minke

#include "ops/e5m6_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/threads.h"
#include "ops/fp8_tiles_kernels.h"
#include "tensor/e5m6.h"

namespace minke {
namespace {

constexpr Index kTileBytes = packed_e5m6_bytes(kFp8Tile);
constexpr Index kRowGrain = 32;

Index row_bytes(Index columns) {
  return columns / kFp8Tile * kTileBytes + packed_e5m6_bytes(columns % kFp8Tile);
}

UE8M0 scale_of(float amax) {
  return UE8M0::round_up(std::clamp(amax / kLargestE5M6, 0x1p-117f, 0x1p119f));
}

// body(t, tile, first column, columns) for every tile, parallel over rows.
template <class Body>
void each_tile(Index rows, Index columns, const Body& body) {
  parallel_ranges(rows, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index k = 0; k < columns; k += kFp8Tile)
        body(t, k / kFp8Tile, k, std::min(kFp8Tile, columns - k));
  });
}

}  // namespace

E5m6Rows e5m6_rows(View2<const float> x) {
  const Index T = x.extent(0), K = x.extent(1), stride = row_bytes(K);
  E5m6Rows y{Tensor::uninitialized<std::uint8_t>({T, stride}),
             Tensor::uninitialized<UE8M0>({T, block_count(K, kFp8Tile)}), K};
  std::uint8_t* bytes = y.codes.view<std::uint8_t, 2>().data();
  const View2<UE8M0> scales = y.scales.view<UE8M0, 2>();
  const Fp8Kernels& kernels = fp8_kernels();
  each_tile(T, K, [&](Index t, Index tile, Index k, Index n) {
    const float* from = x.data() + t * x.stride(0) + k;
    scales(t, tile) = scale_of(kernels.largest(from, n));
    std::array<std::uint16_t, kFp8Tile> codes;
    kernels.encode_e5m6(from, n, scales(t, tile), codes.data());
    pack_e5m6({codes.data(), static_cast<std::size_t>(n)}, bytes + t * stride + tile * kTileBytes);
  });
  return y;
}

void dequantize(const E5m6Rows& x, View2<float> y) {
  const Index T = x.codes.extent(0), K = x.columns, stride = row_bytes(K);
  if (y.extent(0) != T || y.extent(1) != K)
    throw ShapeError(
        fmt::format("E5M6 values [{}, {}] do not fit [{}, {}]", T, K, y.extent(0), y.extent(1)));
  const std::uint8_t* bytes = x.codes.view<std::uint8_t, 2>().data();
  const View2<const UE8M0> scales = x.scales.view<UE8M0, 2>();
  const Fp8Kernels& kernels = fp8_kernels();
  each_tile(T, K, [&](Index t, Index tile, Index k, Index n) {
    std::array<std::uint16_t, kFp8Tile> codes;
    unpack_e5m6(bytes + t * stride + tile * kTileBytes,
                {codes.data(), static_cast<std::size_t>(n)});
    kernels.decode_e5m6(codes.data(), n, scales(t, tile), y.data() + t * y.stride(0) + k);
  });
}

}  // namespace minke

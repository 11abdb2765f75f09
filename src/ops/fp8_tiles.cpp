#include "ops/fp8_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/fp8_tiles_kernels.h"

namespace minke {
namespace {

constexpr float kLargestCode = 448.0f;
constexpr float kLeastScale = 0x1p-117f, kMostScale = 0x1p119f;
constexpr Index kOfTask = 65536;  // values: about 20 us

std::uint8_t* bytes_of(E4M3* codes) {
  return reinterpret_cast<std::uint8_t*>(codes);
}
const std::uint8_t* bytes_of(const E4M3* codes) {
  return reinterpret_cast<const std::uint8_t*>(codes);
}

Index tiles_of(Index n) {
  return block_count(n, kFp8Tile);
}

// The smallest power of two that is not below a normal number below 2^127.
float round_up_to_power(float x) {
  constexpr std::uint32_t kMantissa = 0x7FFFFF;
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + kMantissa) & ~kMantissa);
}

// body(begin, end) over rows of `columns` values each.
void over_rows(Index rows, Index columns, FunctionRef<void(Index, Index)> body) {
  if (rows * columns <= kOfTask)
    body(0, rows);
  else
    parallel_ranges(rows, std::max<Index>(1, kOfTask / std::max<Index>(1, columns)), body);
}

// Integers: their sum is the same in any order.
void add_from_threads(const Fp8Counts& part, Fp8Counts* sum) {
  if (!sum) return;
  const auto add = [](std::int64_t& to, std::int64_t n) {
    std::atomic_ref(to).fetch_add(n, std::memory_order_relaxed);
  };
  add(sum->values, part.values);
  add(sum->nonzero, part.nonzero);
  add(sum->clipped, part.clipped);
  add(sum->underflow, part.underflow);
}

double share(std::int64_t part, std::int64_t of) {
  return of > 0 ? static_cast<double>(part) / static_cast<double>(of) : 0.0;
}

// Tokens that share tiles of 128x1; `tile` is the row of their scales.
struct TokenTile {
  Index row, rows, tile;
};

std::vector<TokenTile> token_tiles(std::span<const Index> offsets, Index n_rows) {
  if (offsets.size() < 2 || offsets.front() != 0 || offsets.back() != n_rows)
    throw ShapeError(
        fmt::format("{} offsets of groups for {} rows; expected them to run from 0 to the number "
                    "of rows",
                    offsets.size(), n_rows));
  std::vector<TokenTile> tiles;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
    for (Index row = offsets[e]; row < offsets[e + 1]; row += kFp8Tile)
      tiles.push_back(
          {row, std::min(kFp8Tile, offsets[e + 1] - row), static_cast<Index>(tiles.size())});
  return tiles;
}

// body(rows of the block, columns of the block, indices of the block) for blocks of 128x128, whose
// maximum is known then.
template <class Body>
void each_weight_block(View2<const float> w, Fp8Counts* counts, const Body& body) {
  const Fp8Kernels& kernels = fp8_kernels();
  parallel_for(tiles_of(w.extent(0)), [&](Index i) {
    Fp8Counts part;
    const Index row = i * kFp8Tile, rows = std::min(kFp8Tile, w.extent(0) - row);
    for (Index k = 0; k < w.extent(1); k += kFp8Tile) {
      const Index n = std::min(kFp8Tile, w.extent(1) - k);
      float amax = 0;
      for (Index r = row; r < row + rows; ++r)
        amax = std::max(amax, kernels.largest(w.data() + r * w.stride(0) + k, n));
      for (Index r = row; r < row + rows; ++r) body(r, k, n, amax, counts ? &part : nullptr);
    }
    add_from_threads(part, counts);
  });
}

}  // namespace

Fp8Counts& Fp8Counts::operator+=(const Fp8Counts& other) {
  values += other.values;
  nonzero += other.nonzero;
  clipped += other.clipped;
  underflow += other.underflow;
  return *this;
}
double Fp8Counts::clipped_share() const {
  return share(clipped, values);
}
double Fp8Counts::underflow_share() const {
  return share(underflow, nonzero);
}

float fp8_tile_scale(float amax, ScaleForm form) {
  const float scale = std::clamp(amax / kLargestCode, kLeastScale, kMostScale);
  return form == ScaleForm::PowerOfTwo ? round_up_to_power(scale) : scale;
}

Fp8Rows fp8_rows(View2<const float> x, ScaleForm form, Fp8Counts* counts) {
  const Index T = x.extent(0), K = x.extent(1), tiles = tiles_of(K);
  Fp8Rows y{Tensor::uninitialized<E4M3>({T, K}), Tensor::uninitialized({T, tiles})};
  std::uint8_t* codes = bytes_of(y.codes.view<E4M3, 2>().data());
  float* scales = y.scales.v2().data();
  const Fp8Kernels& kernels = fp8_kernels();
  over_rows(T, K, [&](Index begin, Index end) {
    Fp8Counts part;
    for (Index t = begin; t < end; ++t)
      for (Index tile = 0; tile < tiles; ++tile) {
        const Index k = tile * kFp8Tile, n = std::min(kFp8Tile, K - k);
        const float* from = x.data() + t * x.stride(0) + k;
        const float scale = fp8_tile_scale(kernels.largest(from, n), form);
        scales[t * tiles + tile] = scale;
        kernels.encode(from, n, scale, codes + t * K + k, counts ? &part : nullptr);
      }
    add_from_threads(part, counts);
  });
  return y;
}

void dequantize(const Fp8View& x, View2<float> y) {
  if (x.codes.extents() != y.extents())
    throw ShapeError(fmt::format("codes [{}, {}] do not fit [{}, {}]", x.codes.extent(0),
                                 x.codes.extent(1), y.extent(0), y.extent(1)));
  const Index K = y.extent(1);
  const Fp8Kernels& kernels = fp8_kernels();
  over_rows(y.extent(0), K, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index k = 0; k < K; k += kFp8Tile)
        kernels.decode(
            bytes_of(x.codes.data()) + t * x.codes.stride(0) + k, std::min(kFp8Tile, K - k),
            x.scales.data()[t * x.scales.stride(0) + k / kFp8Tile], y.data() + t * y.stride(0) + k);
  });
}

namespace {

constexpr Index kColumnsOfTask = 512;  // of them 128 tokens in FP32 stay in cache

// Tiles of 128x1 of x [T, K]: read(t, k, n, room, maxima) gives n numbers of row t from column k
// on, which it may put into `room`, and raises the maxima of their columns to them.
template <class Read>
Fp8Columns tile_columns(Index T, Index K, std::span<const Index> offsets, ScaleForm form,
                        const Read& read) {
  const std::vector<TokenTile> tiles = token_tiles(offsets, T);
  Fp8Columns y{Tensor::uninitialized<BF16>({T, K}), {}};
  if (form == ScaleForm::Float)
    y.scales = Tensor::uninitialized({static_cast<Index>(tiles.size()), K});
  const Fp8Kernels& kernels = fp8_kernels();
  BF16* const values = y.values.v2<BF16>().data();
  const Index ranges = block_count(K, kColumnsOfTask);
  parallel_for(static_cast<Index>(tiles.size()) * ranges, [&](Index i) {
    static thread_local std::vector<float> room(
        static_cast<std::size_t>(kFp8Tile * kColumnsOfTask));
    const auto [row, rows, tile] = tiles[static_cast<std::size_t>(i / ranges)];
    const Index k = i % ranges * kColumnsOfTask, n = std::min(kColumnsOfTask, K - k);
    const float* numbers[kFp8Tile];
    float scales[kColumnsOfTask] = {}, inverses[kColumnsOfTask];
    for (Index t = 0; t < rows; ++t)
      numbers[t] = read(row + t, k, n, room.data() + t * kColumnsOfTask, scales);
    for (Index j = 0; j < n; ++j) {
      scales[j] = fp8_tile_scale(scales[j], form);
      inverses[j] = 1 / scales[j];
    }
    const bool folded = form == ScaleForm::PowerOfTwo;
    for (Index t = 0; t < rows; ++t)
      kernels.round_by(numbers[t], n, scales, folded ? inverses : nullptr,
                       values + (row + t) * K + k);
    if (!folded) std::copy_n(scales, n, y.scales.v2().data() + tile * K + k);
  });
  return y;
}

}  // namespace

Fp8Columns fp8_columns(View2<const float> x, std::span<const Index> offsets, ScaleForm form) {
  const Fp8Kernels& kernels = fp8_kernels();
  return tile_columns(x.extent(0), x.extent(1), offsets, form,
                      [&](Index t, Index k, Index n, float*, float* maxima) {
                        const float* numbers = x.data() + t * x.stride(0) + k;
                        kernels.raise_maxima(numbers, n, maxima);
                        return numbers;
                      });
}

Fp8Columns fp8_columns(const Fp8View& x, std::span<const Index> offsets, ScaleForm form) {
  const Fp8Kernels& kernels = fp8_kernels();
  const auto read = [&](Index t, Index k, Index n, float* room, float* maxima) -> const float* {
    const std::uint8_t* codes = bytes_of(x.codes.data()) + t * x.codes.stride(0) + k;
    const float* scales = x.scales.data() + t * x.scales.stride(0) + k / kFp8Tile;
    for (Index j = 0; j < n; j += kFp8Tile)
      kernels.decode_raising(codes + j, std::min(kFp8Tile, n - j), scales[j / kFp8Tile], room + j,
                             maxima + j);
    return room;
  };
  return tile_columns(x.codes.extent(0), x.codes.extent(1), offsets, form, read);
}

void fp8_blocks(View2<const float> w, ScaleForm form, View2<E4M3> codes, View2<float> scales,
                Fp8Counts* counts) {
  if (codes.extents() != w.extents() || scales.extent(0) != tiles_of(w.extent(0)) ||
      scales.extent(1) != tiles_of(w.extent(1)))
    throw ShapeError(fmt::format("weights [{}, {}] need codes of that shape and scales [{}, {}]",
                                 w.extent(0), w.extent(1), tiles_of(w.extent(0)),
                                 tiles_of(w.extent(1))));
  const Fp8Kernels& kernels = fp8_kernels();
  each_weight_block(w, counts, [&](Index r, Index k, Index n, float amax, Fp8Counts* part) {
    const float scale = fp8_tile_scale(amax, form);
    scales.data()[r / kFp8Tile * scales.stride(0) + k / kFp8Tile] = scale;
    kernels.encode(w.data() + r * w.stride(0) + k, n, scale,
                   bytes_of(codes.data()) + r * codes.stride(0) + k, part);
  });
}

void round_to_fp8_blocks(View2<const float> w, View2<float> y, Fp8Counts* counts) {
  if (y.extents() != w.extents())
    throw ShapeError(fmt::format("weights [{}, {}] cannot be rounded into [{}, {}]", w.extent(0),
                                 w.extent(1), y.extent(0), y.extent(1)));
  const Fp8Kernels& kernels = fp8_kernels();
  each_weight_block(w, counts, [&](Index r, Index k, Index n, float amax, Fp8Counts* part) {
    kernels.round(w.data() + r * w.stride(0) + k, n, fp8_tile_scale(amax, ScaleForm::PowerOfTwo),
                  y.data() + r * y.stride(0) + k, part);
  });
}

namespace reference {
namespace {

float largest(View2<const float> x) {
  float amax = 0;
  for (Index r = 0; r < x.extent(0); ++r)
    for (Index c = 0; c < x.extent(1); ++c)
      if (std::fabs(x(r, c)) > amax) amax = std::fabs(x(r, c));
  return amax;
}

}  // namespace

E4M3 fp8_code(float x, float scale) {
  return E4M3(std::isfinite(x) ? x / scale : std::nanf(""));
}

void fp8_rows(View2<const float> x, ScaleForm form, View2<E4M3> codes, View2<float> scales,
              Fp8Counts& counts) {
  for (Index t = 0; t < x.extent(0); ++t)
    for (Index k = 0; k < x.extent(1); ++k) {
      const Index tile = k / kFp8Tile, first = tile * kFp8Tile;
      const Index n = std::min(kFp8Tile, x.extent(1) - first);
      const float scale = fp8_tile_scale(largest(x.rows(t, 1).columns(first, n)), form);
      scales(t, tile) = scale;
      codes(t, k) = fp8_code(x(t, k), scale);
      counts.values += 1;
      counts.nonzero += x(t, k) != 0;
      counts.clipped += std::fabs(x(t, k) / scale) > 464;
      counts.underflow += x(t, k) != 0 && float(codes(t, k)) == 0;
    }
}

void fp8_columns(View2<const float> x, ScaleForm form, View2<float> code_values,
                 View1<float> scales) {
  for (Index k = 0; k < x.extent(1); ++k) {
    scales(k) = fp8_tile_scale(largest(x.columns(k, 1)), form);
    for (Index t = 0; t < x.extent(0); ++t) code_values(t, k) = fp8_code(x(t, k), scales(k));
  }
}

}  // namespace reference
}  // namespace minke

#include "tensor/int4_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 8;

// Of max |w|: the largest code is 7, the smallest -8, and cutting the extremes off may pay.
constexpr std::array kDivisors{7.0f, 7.25f, 7.5f, 7.75f, 8.0f, 8.25f, 8.5f, 9.0f, 9.5f};

// round(w / scale) as a code 0..15; to nearest, ties to even.
int code_of(float w, float inverse) {
  return static_cast<int>(std::clamp(std::nearbyint(w * inverse), -8.0f, 7.0f)) + 8;
}

float squared_error(const float* w, Index n, float scale) {
  const float inverse = 1.0f / scale;
  float sum = 0;
  for (Index i = 0; i < n; ++i) {
    const float error = w[i] - static_cast<float>(code_of(w[i], inverse) - 8) * scale;
    sum += error * error;
  }
  return sum;
}

// In BF16; of a group of zeros 0.
BF16 best_scale(const float* w, Index n) {
  float largest = 0;
  for (Index i = 0; i < n; ++i) {
    if (!std::isfinite(w[i])) throw Error("a weight is not finite and cannot become 4 bits");
    largest = std::max(largest, std::fabs(w[i]));
  }
  BF16 best(0.0f);
  float least = std::numeric_limits<float>::infinity();
  for (const float divisor : kDivisors) {
    const BF16 scale(largest / divisor);
    if (!(scale > 0.0f) || !std::isfinite(1.0f / scale)) continue;
    const float error = squared_error(w, n, scale);
    if (error < least) least = error, best = scale;
  }
  return best;
}

}  // namespace

void check_int4_group(Index group) {
  if (group != 32 && group != 128)
    throw ConfigError(fmt::format("4-bit weights in groups of {}; expected 32 or 128", group));
}

Int4Matrix quantize_int4(View2<const float> w, Index group) {
  check_int4_group(group);
  const Index N = w.extent(0), K = w.extent(1);
  Int4Matrix q{Tensor(DType::I32, {N, (K + kInt4PerWord - 1) / kInt4PerWord}),
               Tensor(DType::BF16, {N, (K + group - 1) / group}), K, group};
  const auto packed = q.packed.view<std::int32_t, 2>();
  const auto scales = q.scales.view<BF16, 2>();
  parallel_ranges(N, kRowGrain, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      std::uint32_t word = 0;
      for (Index k = 0; k < K; k += group) {
        const float* from = w.data() + n * w.stride(0) + k;
        const Index width = std::min(group, K - k);
        const BF16 scale = best_scale(from, width);
        scales(n, k / group) = scale;
        const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        for (Index i = 0; i < width; ++i) {
          const Index place = (k + i) % kInt4PerWord;
          word |= static_cast<std::uint32_t>(code_of(from[i], inverse)) << (4 * place);
          const bool last = k + i + 1 == K;
          if (last)
            for (Index p = place + 1; p < kInt4PerWord; ++p) word |= 8u << (4 * p);
          if (place + 1 == kInt4PerWord || last) {
            packed(n, (k + i) / kInt4PerWord) = static_cast<std::int32_t>(word);
            word = 0;
          }
        }
      }
    }
  });
  return q;
}

void dequantize_int4(View2<const std::int32_t> packed, View2<const BF16> scales, Index group,
                     View2<float> y) {
  const Index N = y.extent(0), K = y.extent(1);
  if (packed.extent(0) != N || packed.extent(1) != (K + kInt4PerWord - 1) / kInt4PerWord ||
      scales.extent(0) != N || scales.extent(1) != (K + group - 1) / group)
    throw ShapeError(fmt::format(
        "4-bit codes [{}, {}] with scales [{}, {}] do not make [{}, {}] in groups of "
        "{}",
        packed.extent(0), packed.extent(1), scales.extent(0), scales.extent(1), N, K, group));
  parallel_ranges(N, kRowGrain, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n)
      for (Index k = 0; k < K; ++k) {
        const auto word = static_cast<std::uint32_t>(packed(n, k / kInt4PerWord));
        const int code = static_cast<int>(word >> (4 * (k % kInt4PerWord)) & 15u);
        y(n, k) = static_cast<float>(code - 8) * static_cast<float>(scales(n, k / group));
      }
  });
}

}  // namespace minke

#include "ops/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 16;

double mscale_of(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

// The index of the pair that turns `turns` times over the original length.
double pair_turning(double turns, Index rope_width, double theta, Index original_length) {
  const double length = static_cast<double>(original_length);
  return static_cast<double>(rope_width) * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

// Angles and their functions are formed in double and rounded once.
template <class Real>
void fill_angles(std::span<const Index> positions, std::span<const Real> inv_freq, double magnitude,
                 View2<Real> cos, View2<Real> sin) {
  const Index T = static_cast<Index>(positions.size()), n = static_cast<Index>(inv_freq.size());
  check_extents("rope_angles", "cos", cos, {T, n});
  check_extents("rope_angles", "sin", sin, {T, n});
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index i = 0; i < n; ++i) {
        const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) *
                             static_cast<double>(inv_freq[static_cast<std::size_t>(i)]);
        cos(t, i) = static_cast<Real>(std::cos(angle) * magnitude);
        sin(t, i) = static_cast<Real>(std::sin(angle) * magnitude);
      }
  });
}

}  // namespace

template <class T>
std::vector<T> rope_inverse_frequencies(Index rope_width, double theta,
                                        const std::optional<YarnScaling>& yarn) {
  if (rope_width <= 0 || rope_width % 2 != 0)
    throw ShapeError(fmt::format("rope: a width of {} cannot be split in pairs", rope_width));
  const Index n = rope_width / 2;
  double low = 0, high = 0;
  if (yarn) {
    low = std::max(
        0.0, std::floor(pair_turning(yarn->beta_fast, rope_width, theta, yarn->original_length)));
    high = std::min(
        static_cast<double>(rope_width - 1),
        std::ceil(pair_turning(yarn->beta_slow, rope_width, theta, yarn->original_length)));
    if (low == high) high += 0.001;
  }
  std::vector<T> inv_freq(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) {
    double f = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope_width));
    if (yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f = f / yarn->factor * ramp + f * (1 - ramp);
    }
    inv_freq[static_cast<std::size_t>(i)] = static_cast<T>(f);
  }
  return inv_freq;
}

template std::vector<float> rope_inverse_frequencies(Index, double,
                                                     const std::optional<YarnScaling>&);
template std::vector<double> rope_inverse_frequencies(Index, double,
                                                      const std::optional<YarnScaling>&);

double softmax_mscale(const std::optional<YarnScaling>& yarn) {
  return yarn ? mscale_of(yarn->factor, yarn->mscale_all_dim) : 1;
}

double rotation_mscale(const std::optional<YarnScaling>& yarn) {
  return yarn
             ? mscale_of(yarn->factor, yarn->mscale) / mscale_of(yarn->factor, yarn->mscale_all_dim)
             : 1;
}

void rope_angles(std::span<const Index> positions, std::span<const float> inv_freq,
                 double magnitude, View2<float> cos, View2<float> sin) {
  fill_angles(positions, inv_freq, magnitude, cos, sin);
}

void rope_angles(std::span<const Index> positions, std::span<const double> inv_freq,
                 double magnitude, View2<double> cos, View2<double> sin) {
  fill_angles(positions, inv_freq, magnitude, cos, sin);
}

namespace reference {

template <class T>
void rope_apply(View3<T> x, View2<const T> cos, View2<const T> sin, Turn turn) {
  const T sign = turn == Turn::Forward ? T(1) : T(-1);
  for (Index t = 0; t < x.extent(0); ++t)
    for (Index h = 0; h < x.extent(1); ++h)
      for (Index i = 0; i < x.extent(2) / 2; ++i) {
        const T a = x(t, h, 2 * i), b = x(t, h, 2 * i + 1), c = cos(t, i), s = sign * sin(t, i);
        x(t, h, 2 * i) = a * c - b * s;
        x(t, h, 2 * i + 1) = a * s + b * c;
      }
}

template void rope_apply(View3<float>, View2<const float>, View2<const float>, Turn);
template void rope_apply(View3<double>, View2<const double>, View2<const double>, Turn);

}  // namespace reference

void rope_apply(View3<float> x, View2<const float> cos, View2<const float> sin, Turn turn) {
  const Index T = x.extent(0), n = x.extent(2) / 2;
  check_extents("rope_apply", "x", x, {T, x.extent(1), 2 * n});
  check_extents("rope_apply", "cos", cos, {T, n});
  check_extents("rope_apply", "sin", sin, {T, n});
  const auto& kernels = elementwise();
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < x.extent(1); ++h)
        kernels.turn_pairs(x[t][h].data(), cos[t].data(), sin[t].data(), turn == Turn::Backward, n);
  });
}

void rope_apply(View3<double> x, View2<const double> cos, View2<const double> sin, Turn turn) {
  reference::rope_apply(x, cos, sin, turn);
}

}  // namespace minke

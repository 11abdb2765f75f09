// Rotary position embedding on interleaved pairs, as in the published weights: the pair
// (x[2i], x[2i+1]) turns by position * inv_freq[i].
//
// YaRN (the report's 4.3, arXiv 2309.00071): frequencies are divided by `factor` where a pair turns
// less than beta_slow times over the original length, kept where it turns more than beta_fast times,
// blended linearly between. The softmax scale is multiplied by mscale^2, see softmax_mscale.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "tensor/view.h"

namespace minke {

struct YarnScaling {
  double factor = 40, beta_fast = 32, beta_slow = 1;
  double mscale = 1, mscale_all_dim = 1;
  Index original_length = 4096;
};

// [R / 2], computed in double and rounded once to T, float or double.
template <class T = float>
std::vector<T> rope_inverse_frequencies(Index rope_width, double theta,
                                            const std::optional<YarnScaling>& yarn);
// 0.1 * mscale_all_dim * ln(factor) + 1 (1 without YaRN or for factor <= 1): the softmax scale is
// multiplied by its square.
double softmax_mscale(const std::optional<YarnScaling>& yarn);
// What cos and sin are multiplied by: mscale(factor, mscale) / mscale(factor, mscale_all_dim), 1 in
// the published configurations.
double rotation_mscale(const std::optional<YarnScaling>& yarn);

// cos, sin [T, R / 2] of the angles positions[t] * inv_freq[i], formed in double, times `magnitude`.
void rope_angles(std::span<const Index> positions, std::span<const float> inv_freq, double magnitude,
                 View2<float> cos, View2<float> sin);

enum class Turn { Forward, Backward };  // Backward is the transpose: the gradient

// x [T, H, R], turned in place; heads and rows may be strided.
void rope_apply(View3<float> x, View2<const float> cos, View2<const float> sin,
                Turn turn = Turn::Forward);

// In double: the definitions.
void rope_angles(std::span<const Index> positions, std::span<const double> inv_freq,
                 double magnitude, View2<double> cos, View2<double> sin);
void rope_apply(View3<double> x, View2<const double> cos, View2<const double> sin,
                Turn turn = Turn::Forward);

namespace reference {
template <class T>
void rope_apply(View3<T> x, View2<const T> cos, View2<const T> sin, Turn turn);
}  // namespace reference

}  // namespace minke

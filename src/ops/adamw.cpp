#include "ops/adamw.h"

#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kGrain = 1 << 15;

template <class Moment, class Kernel>
void update_in_parallel(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                        View1<Moment> m, View1<Moment> v, Kernel kernel) {
  const Index n = weight.extent(0);
  check_extents("adamw_update", "gradient", gradient, {n});
  check_extents("adamw_update", "m", m, {n});
  check_extents("adamw_update", "v", v, {n});
  const AdamWConstants constants(settings);
  parallel_ranges(n, kGrain, [&](Index begin, Index end) {
    kernel(constants, gradient.data() + begin, weight.data() + begin, m.data() + begin,
           v.data() + begin, end - begin);
  });
}

// 1 - beta^t
double bias_correction(double beta, std::int64_t t) {
  return 1 - std::pow(beta, static_cast<double>(t));
}

// BF16 is rounded from FP32; a double that lies within 2^-25 of the middle between two BF16 numbers
// may so go to the other one.
template <class Moment, class T>
Moment narrowed(T value) {
  if constexpr (std::is_same_v<Moment, BF16>)
    return BF16(static_cast<float>(value));
  else
    return static_cast<Moment>(value);
}

// Of one piece of at most kGrain numbers.
double squares(View1<const float> x) {
  return elementwise().sum_of_squares(x.data(), x.extent(0));
}
double squares(View1<const double> x) {
  double sum = 0;
  for (Index i = 0; i < x.extent(0); ++i) sum += x(i) * x(i);
  return sum;
}

template <class Real>
double sum_over_pieces(View1<const Real> x) {
  const Index n = x.extent(0);
  std::vector<double> pieces(static_cast<std::size_t>((n + kGrain - 1) / kGrain));
  parallel_ranges(n, kGrain, [&](Index begin, Index end) {
    pieces[static_cast<std::size_t>(begin / kGrain)] = squares(x.slice(0, begin, end - begin));
  });
  double sum = 0;
  for (double piece : pieces) sum += piece;
  return sum;
}

}  // namespace

AdamWConstants::AdamWConstants(const AdamW& s)
    : beta1(static_cast<float>(s.beta1)),
      one_minus_beta1(static_cast<float>(1 - s.beta1)),
      beta2(static_cast<float>(s.beta2)),
      one_minus_beta2(static_cast<float>(1 - s.beta2)),
      keep(static_cast<float>(1 - s.lr * s.weight_decay)),
      step(static_cast<float>(s.lr / bias_correction(s.beta1, s.step))),
      v_scale(static_cast<float>(1 / bias_correction(s.beta2, s.step))),
      eps(static_cast<float>(s.eps)),
      gradient_scale(static_cast<float>(s.gradient_scale)) {}

namespace reference {

template <class T, class Moment>
void adamw_update(const AdamW& settings, View1<const T> gradient, View1<T> weight, View1<Moment> m,
                  View1<Moment> v) {
  const T beta1 = static_cast<T>(settings.beta1), beta2 = static_cast<T>(settings.beta2);
  const T lr = static_cast<T>(settings.lr), eps = static_cast<T>(settings.eps);
  const T decay = static_cast<T>(settings.weight_decay);
  const T correction1 = static_cast<T>(bias_correction(settings.beta1, settings.step));
  const T correction2 = static_cast<T>(bias_correction(settings.beta2, settings.step));
  for (Index i = 0; i < weight.extent(0); ++i) {
    const T g = gradient(i) * static_cast<T>(settings.gradient_scale);
    const T m_new = beta1 * static_cast<T>(m(i)) + (1 - beta1) * g;
    const T v_new = beta2 * static_cast<T>(v(i)) + (1 - beta2) * g * g;
    m(i) = narrowed<Moment>(m_new);
    v(i) = narrowed<Moment>(v_new);
    weight(i) -= lr * decay * weight(i);
    weight(i) -= lr * (m_new / correction1) / (std::sqrt(v_new / correction2) + eps);
  }
}

template void adamw_update(const AdamW&, View1<const float>, View1<float>, View1<float>,
                           View1<float>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<double>,
                           View1<double>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<float>,
                           View1<float>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<BF16>,
                           View1<BF16>);

}  // namespace reference

void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<float> m, View1<float> v) {
  update_in_parallel(settings, gradient, weight, m, v, elementwise().adamw_f32);
}

void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<BF16> m, View1<BF16> v) {
  update_in_parallel(settings, gradient, weight, m, v, elementwise().adamw_bf16);
}

template <class Moment>
void adamw_update(const AdamW& settings, View1<const double> gradient, View1<double> weight,
                  View1<Moment> m, View1<Moment> v) {
  reference::adamw_update(settings, gradient, weight, m, v);
}
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<double>,
                           View1<double>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<float>,
                           View1<float>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<BF16>,
                           View1<BF16>);

double sum_of_squares(View1<const float> x) {
  return sum_over_pieces(x);
}
double sum_of_squares(View1<const double> x) {
  return sum_over_pieces(x);
}

}  // namespace minke

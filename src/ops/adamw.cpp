#include "ops/adamw.h"

#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/check_extents.h"

namespace minke {
namespace {

constexpr Index kGrain = 1 << 15;

// The constants of one step, rounded once to the element type.
template <class T>
struct Constants {
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T keep;     // 1 - lr weight_decay
  T step;     // lr / (1 - beta1^t)
  T v_scale;  // 1 / (1 - beta2^t)
  T eps, gradient_scale;

  explicit Constants(const AdamW& s)
      : beta1(static_cast<T>(s.beta1)),
        one_minus_beta1(static_cast<T>(1 - s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        one_minus_beta2(static_cast<T>(1 - s.beta2)),
        keep(static_cast<T>(1 - s.lr * s.weight_decay)),
        step(static_cast<T>(s.lr / (1 - std::pow(s.beta1, static_cast<double>(s.step))))),
        v_scale(static_cast<T>(1 / (1 - std::pow(s.beta2, static_cast<double>(s.step))))),
        eps(static_cast<T>(s.eps)),
        gradient_scale(static_cast<T>(s.gradient_scale)) {}
};

template <class T, class Moment>
void update(const AdamW& settings, View1<const T> gradient, View1<T> weight, View1<Moment> m,
            View1<Moment> v) {
  const Constants<T> c(settings);
  for (Index i = 0; i < weight.extent(0); ++i) {
    const T g = gradient(i) * c.gradient_scale;
    const T m_new = c.beta1 * static_cast<T>(m(i)) + c.one_minus_beta1 * g;
    const T v_new = c.beta2 * static_cast<T>(v(i)) + c.one_minus_beta2 * g * g;
    m(i) = Moment(m_new);
    v(i) = Moment(v_new);
    weight(i) = weight(i) * c.keep - c.step * m_new / (std::sqrt(v_new * c.v_scale) + c.eps);
  }
}

template <class Moment>
void update_in_parallel(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                        View1<Moment> m, View1<Moment> v) {
  const Index n = weight.extent(0);
  check_extents("adamw_update", "gradient", gradient, {n});
  check_extents("adamw_update", "m", m, {n});
  check_extents("adamw_update", "v", v, {n});
  parallel_ranges(n, kGrain, [&](Index begin, Index end) {
    const Index count = end - begin;
    update<float, Moment>(settings, gradient.rows(begin, count), weight.rows(begin, count),
                          m.rows(begin, count), v.rows(begin, count));
  });
}

}  // namespace

namespace reference {

template <class T>
void adamw_update(const AdamW& settings, View1<const T> gradient, View1<T> weight, View1<T> m,
                  View1<T> v) {
  update<T, T>(settings, gradient, weight, m, v);
}

template void adamw_update(const AdamW&, View1<const float>, View1<float>, View1<float>,
                           View1<float>);
template void adamw_update(const AdamW&, View1<const double>, View1<double>, View1<double>,
                           View1<double>);

}  // namespace reference

void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<float> m, View1<float> v) {
  update_in_parallel(settings, gradient, weight, m, v);
}

void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<BF16> m, View1<BF16> v) {
  update_in_parallel(settings, gradient, weight, m, v);
}

double sum_of_squares(View1<const float> x) {
  const Index n = x.extent(0);
  std::vector<double> pieces(static_cast<std::size_t>((n + kGrain - 1) / kGrain));
  parallel_ranges(n, kGrain, [&](Index begin, Index end) {
    double sum = 0;
    for (Index i = begin; i < end; ++i) sum += static_cast<double>(x(i)) * x(i);
    pieces[static_cast<std::size_t>(begin / kGrain)] = sum;
  });
  double sum = 0;
  for (double piece : pieces) sum += piece;
  return sum;
}

}  // namespace minke

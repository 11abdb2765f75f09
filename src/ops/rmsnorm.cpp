#include "ops/rmsnorm.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 32;     // rows of a piece of work
constexpr Index kColumnGrain = 64;  // columns of a piece where rows are summed

}  // namespace

namespace reference {

template <class T>
void rmsnorm_forward(View2<const T> x, View1<const T> gain, T eps, View2<T> y, View1<T> rstd) {
  const Index D = x.extent(1);
  for (Index t = 0; t < x.extent(0); ++t) {
    T sum = 0;
    for (Index d = 0; d < D; ++d) sum += x(t, d) * x(t, d);
    const T r = 1 / std::sqrt(sum / static_cast<T>(D) + eps);
    if (!rstd.empty()) rstd(t) = r;
    for (Index d = 0; d < D; ++d) y(t, d) = gain(d) * (x(t, d) * r);
  }
}

template <class T>
void rmsnorm_backward_input(View2<const T> dy, View2<const T> x, View1<const T> gain,
                            View1<const T> rstd, View2<T> dx) {
  const Index D = x.extent(1);
  for (Index t = 0; t < x.extent(0); ++t) {
    const T r = rstd(t);
    T sum = 0;
    for (Index d = 0; d < D; ++d) sum += gain(d) * dy(t, d) * (x(t, d) * r);
    const T mean = sum / static_cast<T>(D);
    for (Index d = 0; d < D; ++d) dx(t, d) = r * (gain(d) * dy(t, d) - x(t, d) * r * mean);
  }
}

template <class T>
void rmsnorm_backward_weight(View2<const T> dy, View2<const T> x, View1<const T> rstd,
                             View1<T> dgain) {
  for (Index d = 0; d < x.extent(1); ++d) {
    T sum = 0;
    for (Index t = 0; t < x.extent(0); ++t) sum += dy(t, d) * (x(t, d) * rstd(t));
    dgain(d) += sum;
  }
}

#define MINKE_INSTANTIATE(T)                                                            \
  template void rmsnorm_forward(View2<const T>, View1<const T>, T, View2<T>, View1<T>); \
  template void rmsnorm_backward_input(View2<const T>, View2<const T>, View1<const T>,  \
                                       View1<const T>, View2<T>);                       \
  template void rmsnorm_backward_weight(View2<const T>, View2<const T>, View1<const T>, View1<T>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace reference

namespace {

template <class To>
void forward(View2<const float> x, View1<const float> gain, double eps, View2<To> y,
             View1<float> rstd) {
  const Index T = x.extent(0), D = x.extent(1);
  check_extents("rmsnorm_forward", "gain", gain, {D});
  check_extents("rmsnorm_forward", "y", y, {T, D});
  const bool keep = rstd.extent(0) > 0;
  if (keep) check_extents("rmsnorm_forward", "rstd", rstd, {T});
  const auto& kernels = elementwise().to<To>();
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const float r =
          kernels.rmsnorm(x[t].data(), gain.data(), static_cast<float>(eps), y[t].data(), D);
      if (keep) rstd(t) = r;
    }
  });
}

}  // namespace

void rmsnorm_forward(View2<const float> x, View1<const float> gain, double eps, View2<float> y,
                     View1<float> rstd) {
  forward(x, gain, eps, y, rstd);
}
void rmsnorm_forward(View2<const float> x, View1<const float> gain, double eps, View2<BF16> y,
                     View1<float> rstd) {
  forward(x, gain, eps, y, rstd);
}

void rmsnorm_backward_input(View2<const float> dy, View2<const float> x, View1<const float> gain,
                            View1<const float> rstd, View2<float> dx) {
  const Index T = x.extent(0), D = x.extent(1);
  check_extents("rmsnorm_backward_input", "dy", dy, {T, D});
  check_extents("rmsnorm_backward_input", "gain", gain, {D});
  check_extents("rmsnorm_backward_input", "rstd", rstd, {T});
  check_extents("rmsnorm_backward_input", "dx", dx, {T, D});
  const auto& kernels = elementwise();
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      kernels.rmsnorm_backward(dy[t].data(), x[t].data(), gain.data(), rstd(t), dx[t].data(), D);
  });
}

void rmsnorm_backward_weight(View2<const float> dy, View2<const float> x, View1<const float> rstd,
                             View1<float> dgain) {
  const Index T = x.extent(0), D = x.extent(1);
  check_extents("rmsnorm_backward_weight", "dy", dy, {T, D});
  check_extents("rmsnorm_backward_weight", "rstd", rstd, {T});
  check_extents("rmsnorm_backward_weight", "dgain", dgain, {D});
  const auto& kernels = elementwise();
  parallel_ranges(D, kColumnGrain, [&](Index begin, Index end) {
    kernels.rmsnorm_weight(
        {dy.data() + begin, x.data() + begin, dy.stride(0), x.stride(0), T, end - begin},
        rstd.data(), dgain.data() + begin);
  });
}

void rmsnorm_forward(View2<const double> x, View1<const double> gain, double eps, View2<double> y,
                     View1<double> rstd) {
  reference::rmsnorm_forward(x, gain, eps, y, rstd);
}

void rmsnorm_backward_input(View2<const double> dy, View2<const double> x, View1<const double> gain,
                            View1<const double> rstd, View2<double> dx) {
  reference::rmsnorm_backward_input(dy, x, gain, rstd, dx);
}

void rmsnorm_backward_weight(View2<const double> dy, View2<const double> x,
                             View1<const double> rstd, View1<double> dgain) {
  reference::rmsnorm_backward_weight(dy, x, rstd, dgain);
}

}  // namespace minke

#include "ops/swiglu.h"

#include <cmath>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 16;

template <class T>
T sigmoid(T a) {
  return 1 / (1 + std::exp(-a));
}

}  // namespace

namespace reference {

template <class T>
void swiglu_forward(View2<const T> gate, View2<const T> up, View2<T> y) {
  for (Index t = 0; t < gate.extent(0); ++t)
    for (Index f = 0; f < gate.extent(1); ++f)
      y(t, f) = gate(t, f) * sigmoid(gate(t, f)) * up(t, f);
}

template <class T>
void swiglu_backward_input(View2<const T> dy, View2<const T> gate, View2<const T> up,
                           View2<T> dgate, View2<T> dup) {
  for (Index t = 0; t < gate.extent(0); ++t)
    for (Index f = 0; f < gate.extent(1); ++f) {
      const T d = dy(t, f), a = gate(t, f), u = up(t, f), s = sigmoid(a);
      dgate(t, f) = d * u * s * (1 + a * (1 - s));
      dup(t, f) = d * a * s;
    }
}

#define MINKE_INSTANTIATE(T)                                                                    \
  template void swiglu_forward(View2<const T>, View2<const T>, View2<T>);                       \
  template void swiglu_backward_input(View2<const T>, View2<const T>, View2<const T>, View2<T>, \
                                      View2<T>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace reference

namespace {

template <class To>
void forward(View2<const float> gate, View2<const float> up, View2<To> y) {
  const Index T = gate.extent(0), F = gate.extent(1);
  check_extents("swiglu_forward", "up", up, {T, F});
  check_extents("swiglu_forward", "y", y, {T, F});
  const auto& kernels = elementwise().to<To>();
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      kernels.swiglu(gate[t].data(), up[t].data(), y[t].data(), F);
  });
}

}  // namespace

void swiglu_forward(View2<const float> gate, View2<const float> up, View2<float> y) {
  forward(gate, up, y);
}
void swiglu_forward(View2<const float> gate, View2<const float> up, View2<BF16> y) {
  forward(gate, up, y);
}

void swiglu_backward_input(View2<const float> dy, View2<const float> gate, View2<const float> up,
                           View2<float> dgate, View2<float> dup) {
  const Index T = gate.extent(0), F = gate.extent(1);
  check_extents("swiglu_backward_input", "dy", dy, {T, F});
  check_extents("swiglu_backward_input", "up", up, {T, F});
  check_extents("swiglu_backward_input", "dgate", dgate, {T, F});
  check_extents("swiglu_backward_input", "dup", dup, {T, F});
  const auto& kernels = elementwise().to_f32;
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      kernels.swiglu_backward(dy[t].data(), gate[t].data(), up[t].data(), dgate[t].data(),
                              dup[t].data(), F);
  });
}

void swiglu_forward(View2<const double> gate, View2<const double> up, View2<double> y) {
  reference::swiglu_forward(gate, up, y);
}

void swiglu_backward_input(View2<const double> dy, View2<const double> gate, View2<const double> up,
                           View2<double> dgate, View2<double> dup) {
  reference::swiglu_backward_input(dy, gate, up, dgate, dup);
}

}  // namespace minke

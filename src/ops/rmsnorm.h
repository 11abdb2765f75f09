// Root-mean-square normalisation over the last dimension.
//   y[t] = gain * x[t] * rstd[t],   rstd[t] = 1 / sqrt(mean(x[t]^2) + eps)
// Sums are FP32. Parallel over rows; a row's bits do not depend on the others.
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

// x [T, D], gain [D] -> y [T, D], rstd [T] (kept for the backward pass, may be empty). y may be x.
void rmsnorm_forward(View2<const float> x, View1<const float> gain, double eps, View2<float> y,
                     View1<float> rstd = {});
// y rounded to BF16: the operand of a product that would round it.
void rmsnorm_forward(View2<const float> x, View1<const float> gain, double eps, View2<BF16> y,
                     View1<float> rstd = {});

// dy, x [T, D] -> dx [T, D], overwritten; dx may be dy. With xhat = x rstd:
//   dx = rstd (gain dy - xhat mean(gain dy xhat))
void rmsnorm_backward_input(View2<const float> dy, View2<const float> x, View1<const float> gain,
                            View1<const float> rstd, View2<float> dx);

// dgain [D] += sum_t dy x rstd
void rmsnorm_backward_weight(View2<const float> dy, View2<const float> x, View1<const float> rstd,
                             View1<float> dgain);

// In double: the definitions.
void rmsnorm_forward(View2<const double> x, View1<const double> gain, double eps, View2<double> y,
                     View1<double> rstd = {});
void rmsnorm_backward_input(View2<const double> dy, View2<const double> x, View1<const double> gain,
                            View1<const double> rstd, View2<double> dx);
void rmsnorm_backward_weight(View2<const double> dy, View2<const double> x,
                             View1<const double> rstd, View1<double> dgain);

namespace reference {
template <class T>
void rmsnorm_forward(View2<const T> x, View1<const T> gain, T eps, View2<T> y, View1<T> rstd);
template <class T>
void rmsnorm_backward_input(View2<const T> dy, View2<const T> x, View1<const T> gain,
                            View1<const T> rstd, View2<T> dx);
template <class T>
void rmsnorm_backward_weight(View2<const T> dy, View2<const T> x, View1<const T> rstd,
                             View1<T> dgain);
}  // namespace reference

}  // namespace minke

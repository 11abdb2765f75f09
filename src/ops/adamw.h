// AdamW with decoupled weight decay (arXiv 1711.05101), bias-corrected.
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   w -= lr weight_decay w;   w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// Weights and gradients are FP32, or double. Moments are of that type or of a narrower one: then
// widened, updated, used and rounded to nearest.
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

struct AdamW {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  std::int64_t step = 1;  // t, from 1
  double gradient_scale = 1;  // g is multiplied by it first: clipping
};

void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<float> m, View1<float> v);
void adamw_update(const AdamW& settings, View1<const float> gradient, View1<float> weight,
                  View1<BF16> m, View1<BF16> v);

// In double: the definition. Moment is double, float or BF16.
template <class Moment>
void adamw_update(const AdamW& settings, View1<const double> gradient, View1<double> weight,
                  View1<Moment> m, View1<Moment> v);

// Sum of squares in double over fixed pieces: the same bits on any number of threads.
double sum_of_squares(View1<const float> x);
double sum_of_squares(View1<const double> x);

namespace reference {
template <class T, class Moment>
void adamw_update(const AdamW& settings, View1<const T> gradient, View1<T> weight, View1<Moment> m,
                  View1<Moment> v);
}  // namespace reference

}  // namespace minke

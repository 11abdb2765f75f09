#include "ops/tensor_core_sum.h"

#include <algorithm>
#include <cmath>

namespace minke {
namespace {

// `accumulator` and the products of one instruction, aligned, truncated and added. Terms are
// multiples of one unit and fewer than 2^6: their sum is exact in double.
double add_aligned(double accumulator, View1<const float> a, View1<const float> b, int bits) {
  const Index n = a.extent(0);
  double largest = std::fabs(accumulator);
  for (Index i = 0; i < n; ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(a(i)) * static_cast<double>(b(i))));
  if (largest == 0 || !std::isfinite(largest)) return accumulator + largest;
  const double unit = std::ldexp(1.0, std::ilogb(largest) - (bits - 1));
  double sum = std::trunc(accumulator / unit);
  for (Index i = 0; i < n; ++i)
    sum += std::trunc(static_cast<double>(a(i)) * static_cast<double>(b(i)) / unit);
  return sum * unit;
}

}  // namespace

float tensor_core_dot(View1<const float> a, View1<const float> b, const TensorCoreSum& how) {
  const Index K = a.extent(0);
  MINKE_ASSERT(how.promote_every % how.terms == 0);
  float promoted = 0;
  double accumulator = 0;
  for (Index k = 0; k < K; k += how.terms) {
    const Index n = std::min(how.terms, K - k);
    accumulator = add_aligned(accumulator, a.slice(0, k, n), b.slice(0, k, n), how.bits);
    if (how.promote_every > 0 && (k + n) % how.promote_every == 0) {
      promoted += static_cast<float>(accumulator);
      accumulator = 0;
    }
  }
  return promoted + static_cast<float>(accumulator);
}

}  // namespace minke

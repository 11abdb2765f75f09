#include "ops/cross_entropy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 8;

// log(sum_v exp(z[v])) with the maximum taken out.
template <class T>
T log_sum_exp(View1<const T> z) {
  T largest = z(0);
  for (Index v = 1; v < z.extent(0); ++v) largest = std::max(largest, z(v));
  T sum = 0;
  for (Index v = 0; v < z.extent(0); ++v) sum += std::exp(z(v) - largest);
  return largest + std::log(sum);
}

template <class Real>
void check(const char* operation, View2<Real> logits, std::span<const std::int32_t> targets,
           View1<std::remove_const_t<Real>> nll) {
  const Index T = logits.extent(0), V = logits.extent(1);
  check_extents(operation, "targets", {static_cast<Index>(targets.size())}, {T});
  check_extents(operation, "nll", nll, {T});
  for (std::size_t t = 0; t < targets.size(); ++t)
    if (targets[t] != kNoTarget && (targets[t] < 0 || targets[t] >= V))
      throw ShapeError(fmt::format("{}: target {} at row {} is outside the vocabulary of {}",
                                   operation, targets[t], t, V));
}

}  // namespace

namespace reference {

template <class T>
void cross_entropy_forward_backward(View2<T> logits, std::span<const std::int32_t> targets,
                                    T weight, View1<T> nll) {
  for (Index t = 0; t < logits.extent(0); ++t) {
    const Index target = targets[static_cast<std::size_t>(t)];
    const View1<T> z = logits[t];
    if (target == kNoTarget) {
      nll(t) = 0;
      for (Index v = 0; v < z.extent(0); ++v) z(v) = 0;
      continue;
    }
    const T lse = log_sum_exp<T>(z);
    nll(t) = lse - z(target);
    for (Index v = 0; v < z.extent(0); ++v)
      z(v) = weight * (std::exp(z(v) - lse) - (v == target ? T(1) : T(0)));
  }
}

template void cross_entropy_forward_backward(View2<float>, std::span<const std::int32_t>, float,
                                             View1<float>);
template void cross_entropy_forward_backward(View2<double>, std::span<const std::int32_t>, double,
                                             View1<double>);

}  // namespace reference

void cross_entropy_forward(View2<const float> logits, std::span<const std::int32_t> targets,
                           View1<float> nll) {
  check("cross_entropy_forward", logits, targets, nll);
  const auto& kernels = elementwise();
  parallel_ranges(logits.extent(0), kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const Index target = targets[static_cast<std::size_t>(t)];
      nll(t) = 0;
      if (target == kNoTarget) continue;
      float largest = 0;
      const float sum = kernels.exponentials(logits[t].data(), nullptr, &largest, logits.extent(1));
      nll(t) = std::log(sum) + (largest - logits(t, target));
    }
  });
}

void cross_entropy_forward_backward(View2<float> logits, std::span<const std::int32_t> targets,
                                    double weight, View1<float> nll) {
  check("cross_entropy_forward_backward", logits, targets, nll);
  const auto& kernels = elementwise();
  const Index V = logits.extent(1);
  const float per_row = static_cast<float>(weight);
  parallel_ranges(logits.extent(0), kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const Index target = targets[static_cast<std::size_t>(t)];
      float* z = logits[t].data();
      nll(t) = 0;
      if (target == kNoTarget) {
        std::fill_n(z, V, 0.0f);
        continue;
      }
      const float chosen = z[target];
      float largest = 0;
      const float sum = kernels.exponentials(z, z, &largest, V);
      nll(t) = std::log(sum) + (largest - chosen);
      kernels.scale(per_row / sum, z, V);
      z[target] -= per_row;
    }
  });
}

void cross_entropy_forward_backward(View2<double> logits, std::span<const std::int32_t> targets,
                                    double weight, View1<double> nll) {
  check("cross_entropy_forward_backward", logits, targets, nll);
  parallel_ranges(logits.extent(0), kRowGrain, [&](Index begin, Index end) {
    const Index n = end - begin;
    reference::cross_entropy_forward_backward(
        logits.rows(begin, n),
        targets.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)), weight,
        nll.slice(0, begin, n));
  });
}

}  // namespace minke

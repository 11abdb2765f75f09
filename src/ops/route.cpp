#include "ops/route.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"
#include "tensor/block_cache.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 32;
constexpr double kTiny = 1e-20;  // what a sum of scores that all underflow is divided by

// The n highest of `values`, falling; ties go to the lower index.
template <class T>
void choose_highest(std::span<const T> values, Index n, std::int32_t* chosen,
                    BlockVector<char>& taken) {
  taken.assign(values.size(), 0);
  for (Index k = 0; k < n; ++k) {
    std::size_t best = values.size();
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!taken[i] && (best == values.size() || values[i] > values[best])) best = i;
    taken[best] = 1;
    chosen[k] = static_cast<std::int32_t>(best);
  }
}

template <class T>
T sum_of_two_best(std::span<const T> values) {
  T first = -std::numeric_limits<T>::infinity(), second = first;
  for (T v : values)
    if (v > first)
      second = first, first = v;
    else if (v > second)
      second = v;
  return values.size() == 1 ? first : first + second;
}

// What one row needs, so that a piece of rows takes it once.
template <class T>
struct RouteScratch {
  explicit RouteScratch(const RouteShape& s)
      : biased(static_cast<std::size_t>(s.n_experts)),
        group_score(static_cast<std::size_t>(s.n_group)),
        groups(static_cast<std::size_t>(s.topk_group)) {}
  BlockVector<T> biased, group_score;
  BlockVector<std::int32_t> groups;
  BlockVector<char> taken;
};

// Experts outside the best groups get minus infinity, never 0: biased scores may all be negative.
template <class T>
void mask_groups(const RouteShape& shape, RouteScratch<T>& s) {
  if (shape.n_group == 1) return;
  const std::size_t size = s.biased.size() / s.group_score.size();
  for (std::size_t g = 0; g < s.group_score.size(); ++g)
    s.group_score[g] = sum_of_two_best<T>(std::span(s.biased).subspan(g * size, size));
  choose_highest<T>(s.group_score, shape.topk_group, s.groups.data(), s.taken);
  for (std::size_t g = 0; g < s.group_score.size(); ++g)
    if (!s.taken[g])
      std::fill_n(s.biased.begin() + static_cast<std::ptrdiff_t>(g * size), size,
                  -std::numeric_limits<T>::infinity());
}

// Scores are there: choose and weigh one row.
template <class T>
void route_row(const RouteShape& shape, View1<const T> scores, View1<const T> bias,
               View1<std::int32_t> indices, View1<T> weights, RouteScratch<T>& s) {
  for (Index e = 0; e < shape.n_experts; ++e)
    s.biased[static_cast<std::size_t>(e)] = scores(e) + bias(e);
  mask_groups(shape, s);
  choose_highest<T>(s.biased, shape.top_k, indices.data(), s.taken);
  T sum = static_cast<T>(kTiny);
  for (Index k = 0; k < shape.top_k; ++k) sum += scores(indices(k));
  const T factor = static_cast<T>(shape.scale) / (shape.normalize ? sum : T(1));
  for (Index k = 0; k < shape.top_k; ++k) weights(k) = scores(indices(k)) * factor;
}

void check_route(const RouteShape& s) {
  const bool groups_fit = s.n_group >= 1 && s.topk_group >= 1 && s.topk_group <= s.n_group &&
                          s.n_experts >= 1 && s.n_experts % s.n_group == 0;
  if (!groups_fit || s.top_k < 1 || s.top_k > s.n_experts / s.n_group * s.topk_group)
    throw ShapeError(fmt::format(
        "route: cannot choose {} of {} experts in {} of {} groups; expected equal groups that hold "
        "enough experts",
        s.top_k, s.n_experts, s.topk_group, s.n_group));
}

}  // namespace

namespace reference {

template <class T>
void route_forward(const RouteShape& shape, View2<const T> logits, View1<const T> bias,
                   View2<T> scores, View2<std::int32_t> indices, View2<T> weights) {
  RouteScratch<T> scratch(shape);
  for (Index t = 0; t < logits.extent(0); ++t) {
    for (Index e = 0; e < shape.n_experts; ++e) scores(t, e) = 1 / (1 + std::exp(-logits(t, e)));
    route_row<T>(shape, scores[t], bias, indices[t], weights[t], scratch);
  }
}

// With w_k = scale s_k / S, S = sum of the chosen scores + 1e-20:
//   ds_k = scale / S (dw_k - sum_j dw_j s_j / S)
template <class T>
void route_backward_weights(const RouteShape& shape, View2<const T> dweights, View2<const T> scores,
                            View2<const std::int32_t> indices, View2<T> dscores) {
  for (Index t = 0; t < scores.extent(0); ++t) {
    for (Index e = 0; e < shape.n_experts; ++e) dscores(t, e) = 0;
    T sum = static_cast<T>(kTiny), dot = 0;
    for (Index k = 0; k < shape.top_k; ++k) {
      sum += scores(t, indices(t, k));
      dot += dweights(t, k) * scores(t, indices(t, k));
    }
    const T scale = static_cast<T>(shape.scale);
    for (Index k = 0; k < shape.top_k; ++k)
      dscores(t, indices(t, k)) =
          shape.normalize ? scale / sum * (dweights(t, k) - dot / sum) : scale * dweights(t, k);
  }
}

template <class T>
void route_backward_scores(View2<const T> dscores, View2<const T> scores, View2<T> dlogits) {
  for (Index t = 0; t < scores.extent(0); ++t)
    for (Index e = 0; e < scores.extent(1); ++e)
      dlogits(t, e) = dscores(t, e) * scores(t, e) * (1 - scores(t, e));
}

// With Z_t = sum_j s_tj: d loss / d s_ti = alpha / (B length Z_t) (f_i - sum_j f_j s_tj / Z_t).
template <class T>
double balance_loss(const RouteShape& shape, View2<const T> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<T> dscores) {
  const Index E = shape.n_experts, B = length > 0 ? scores.extent(0) / length : 0;
  BlockVector<std::int32_t> chosen(static_cast<std::size_t>(shape.top_k));
  BlockVector<char> taken;
  std::vector<double> fraction(static_cast<std::size_t>(E)), mean(static_cast<std::size_t>(E));
  double loss = 0;
  for (Index b = 0; b < B; ++b) {
    std::fill(fraction.begin(), fraction.end(), 0.0);
    std::fill(mean.begin(), mean.end(), 0.0);
    std::vector<double> total(static_cast<std::size_t>(length), kTiny);
    for (Index i = 0; i < length; ++i) {
      const View1<const T> s = scores[b * length + i];
      choose_highest<T>(std::span(s.data(), static_cast<std::size_t>(E)), shape.top_k,
                        chosen.data(), taken);
      for (std::int32_t e : chosen) fraction[static_cast<std::size_t>(e)] += 1;
      double& sum = total[static_cast<std::size_t>(i)];
      for (Index e = 0; e < E; ++e) sum += static_cast<double>(s(e));
      for (Index e = 0; e < E; ++e)
        mean[static_cast<std::size_t>(e)] += static_cast<double>(s(e)) / sum;
    }
    double dot = 0;
    for (std::size_t e = 0; e < fraction.size(); ++e) {
      fraction[e] *= static_cast<double>(E) / static_cast<double>(shape.top_k * length);
      mean[e] /= static_cast<double>(length);
      dot += fraction[e] * mean[e];
      if (!f.empty()) f(b, static_cast<Index>(e)) = fraction[e];
      if (!p.empty()) p(b, static_cast<Index>(e)) = mean[e];
    }
    loss += alpha * dot / static_cast<double>(B);
    if (dscores.empty()) continue;
    for (Index i = 0; i < length; ++i) {
      const Index t = b * length + i;
      const double sum = total[static_cast<std::size_t>(i)];
      double weighted = 0;
      for (Index e = 0; e < E; ++e)
        weighted += fraction[static_cast<std::size_t>(e)] * static_cast<double>(scores(t, e));
      const double factor = alpha / (static_cast<double>(B * length) * sum);
      for (Index e = 0; e < E; ++e)
        dscores(t, e) +=
            static_cast<T>(factor * (fraction[static_cast<std::size_t>(e)] - weighted / sum));
    }
  }
  return loss;
}

#define MINKE_INSTANTIATE(T)                                                                    \
  template void route_forward(const RouteShape&, View2<const T>, View1<const T>, View2<T>,      \
                              View2<std::int32_t>, View2<T>);                                   \
  template void route_backward_weights(const RouteShape&, View2<const T>, View2<const T>,       \
                                       View2<const std::int32_t>, View2<T>);                    \
  template void route_backward_scores(View2<const T>, View2<const T>, View2<T>);                \
  template double balance_loss(const RouteShape&, View2<const T>, Index, double, View2<double>, \
                               View2<double>, View2<T>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace reference

void route_forward(const RouteShape& shape, View2<const float> logits, View1<const float> bias,
                   View2<float> scores, View2<std::int32_t> indices, View2<float> weights) {
  const Index T = logits.extent(0), E = shape.n_experts;
  check_route(shape);
  check_extents("route_forward", "logits", logits, {T, E});
  check_extents("route_forward", "bias", bias, {E});
  check_extents("route_forward", "scores", scores, {T, E});
  check_extents("route_forward", "indices", indices, {T, shape.top_k});
  check_extents("route_forward", "weights", weights, {T, shape.top_k});
  const auto& kernels = elementwise();
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    RouteScratch<float> scratch(shape);
    for (Index t = begin; t < end; ++t) {
      kernels.sigmoid(logits[t].data(), scores[t].data(), E);
      route_row<float>(shape, scores[t], bias, indices[t], weights[t], scratch);
    }
  });
}

void route_backward_weights(const RouteShape& shape, View2<const float> dweights,
                            View2<const float> scores, View2<const std::int32_t> indices,
                            View2<float> dscores) {
  const Index T = scores.extent(0), E = shape.n_experts;
  check_extents("route_backward_weights", "scores", scores, {T, E});
  check_extents("route_backward_weights", "dweights", dweights, {T, shape.top_k});
  check_extents("route_backward_weights", "indices", indices, {T, shape.top_k});
  check_extents("route_backward_weights", "dscores", dscores, {T, E});
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    const Index n = end - begin;
    reference::route_backward_weights<float>(shape, dweights.rows(begin, n), scores.rows(begin, n),
                                             indices.rows(begin, n), dscores.rows(begin, n));
  });
}

void route_backward_scores(View2<const float> dscores, View2<const float> scores,
                           View2<float> dlogits) {
  const Index T = scores.extent(0), E = scores.extent(1);
  check_extents("route_backward_scores", "dscores", dscores, {T, E});
  check_extents("route_backward_scores", "dlogits", dlogits, {T, E});
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    const Index n = end - begin;
    reference::route_backward_scores<float>(dscores.rows(begin, n), scores.rows(begin, n),
                                            dlogits.rows(begin, n));
  });
}

double balance_loss(const RouteShape& shape, View2<const float> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<float> dscores) {
  const Index T = scores.extent(0), E = shape.n_experts;
  check_extents("balance_loss", "scores", scores, {T, E});
  if (length <= 0 || T % length != 0)
    throw ShapeError(fmt::format("balance_loss: {} rows are not whole sequences of {}", T, length));
  const Index B = T / length;
  if (!f.empty()) check_extents("balance_loss", "f", f, {B, E});
  if (!p.empty()) check_extents("balance_loss", "p", p, {B, E});
  if (!dscores.empty()) check_extents("balance_loss", "dscores", dscores, {T, E});
  // Sequences are independent but for the mean, which alpha / B takes care of.
  std::vector<double> losses(static_cast<std::size_t>(B));
  parallel_for(B, [&](Index b) {
    losses[static_cast<std::size_t>(b)] = reference::balance_loss<float>(
        shape, scores.rows(b * length, length), length, alpha / static_cast<double>(B),
        f.empty() ? f : f.rows(b, 1), p.empty() ? p : p.rows(b, 1),
        dscores.empty() ? dscores : dscores.rows(b * length, length));
  });
  double loss = 0;
  for (double l : losses) loss += l;
  return loss;
}

void route_forward(const RouteShape& shape, View2<const double> logits, View1<const double> bias,
                   View2<double> scores, View2<std::int32_t> indices, View2<double> weights) {
  check_route(shape);
  reference::route_forward(shape, logits, bias, scores, indices, weights);
}

void route_backward_weights(const RouteShape& shape, View2<const double> dweights,
                            View2<const double> scores, View2<const std::int32_t> indices,
                            View2<double> dscores) {
  reference::route_backward_weights(shape, dweights, scores, indices, dscores);
}

void route_backward_scores(View2<const double> dscores, View2<const double> scores,
                           View2<double> dlogits) {
  reference::route_backward_scores(dscores, scores, dlogits);
}

double balance_loss(const RouteShape& shape, View2<const double> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<double> dscores) {
  return reference::balance_loss(shape, scores, length, alpha, f, p, dscores);
}

void count_loads(View2<const std::int32_t> indices, std::span<std::int64_t> load) {
  const Index E = static_cast<Index>(load.size());
  for (Index t = 0; t < indices.extent(0); ++t)
    for (Index k = 0; k < indices.extent(1); ++k) {
      const Index expert = indices(t, k);
      if (expert < 0 || expert >= E)
        throw ShapeError(fmt::format("count_loads: token {} chose expert {} of {}", t, expert, E));
      ++load[static_cast<std::size_t>(expert)];
    }
}

}  // namespace minke

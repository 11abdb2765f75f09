#include "ops/permute.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 32;

// `without_tokens` where there are none.
Index choices_per_token(const char* operation, const ExpertOrder& order, Index n_tokens,
                        Index without_tokens = 0) {
  const Index rows = static_cast<Index>(order.row.size());
  if (n_tokens == 0) return without_tokens;
  if (rows % n_tokens != 0)
    throw ShapeError(fmt::format("{}: {} rows were sorted, not a multiple of {} tokens", operation,
                                 rows, n_tokens));
  return rows / n_tokens;
}

// to[t] = f(a[t], b[t], ...) element by element, parallel over rows.
template <class To, class F>
void each_row(View2<To> to, F&& f) {
  parallel_ranges(to.extent(0), kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) f(t, to.data() + t * to.stride(0));
  });
}

template <class From, class To>
void convert_rows(View2<const From> from, View2<To> to) {
  check_extents("copy", "to", to, {from.extent(0), from.extent(1)});
  each_row(to, [&](Index t, To* row) {
    const From* source = from.data() + t * from.stride(0);
    for (Index d = 0; d < from.extent(1); ++d) row[d] = To(source[d]);
  });
}

template <class Real>
void gather(View2<const Real> x, const ExpertOrder& order, View2<Real> rows) {
  const Index D = x.extent(1);
  check_extents("gather_tokens", "rows", rows, {static_cast<Index>(order.token.size()), D});
  each_row(rows, [&](Index r, Real* row) {
    const Index token = order.token[static_cast<std::size_t>(r)];
    std::memcpy(row, x.data() + token * x.stride(0), static_cast<std::size_t>(D) * sizeof(Real));
  });
}

// add(weight, row, y[t]) for every row of every sum.
template <class Real, class F>
void sum_listed(const RowSums<Real>& sums, View2<Real> y, F&& add) {
  MINKE_ASSERT(static_cast<Index>(sums.first.size()) == y.extent(0) + 1);
  each_row(y, [&](Index t, Real* sum) {
    const auto end = static_cast<std::size_t>(sums.first[static_cast<std::size_t>(t) + 1]);
    for (auto j = static_cast<std::size_t>(sums.first[static_cast<std::size_t>(t)]); j < end; ++j)
      add(sums.weight.empty() ? Real{1} : sums.weight[j], Index{sums.row[j]}, sum);
  });
}

template <class Real>
void add_rows(View2<const Real> a, View2<const Real> b, View2<Real> y) {
  const Index D = a.extent(1);
  check_extents("add", "b", b, {a.extent(0), D});
  check_extents("add", "y", y, {a.extent(0), D});
  each_row(y, [&](Index t, Real* sum) {
    const Real* p = a.data() + t * a.stride(0);
    const Real* q = b.data() + t * b.stride(0);
    for (Index d = 0; d < D; ++d) sum[d] = p[d] + q[d];
  });
}

}  // namespace

ExpertOrder sort_by_expert(View2<const std::int32_t> indices, Index n_experts) {
  const Index T = indices.extent(0), K = indices.extent(1);
  const auto size = static_cast<std::size_t>(T * K);
  ExpertOrder order;
  order.offsets.assign(static_cast<std::size_t>(n_experts) + 1, 0);
  order.token.resize(size);
  order.slot.resize(size);
  order.row.resize(size);
  for (Index t = 0; t < T; ++t)
    for (Index k = 0; k < K; ++k) {
      const Index expert = indices(t, k);
      if (expert < 0 || expert >= n_experts)
        throw ShapeError(
            fmt::format("sort_by_expert: token {} chose expert {} of {}", t, expert, n_experts));
      ++order.offsets[static_cast<std::size_t>(expert) + 1];
    }
  for (std::size_t e = 1; e < order.offsets.size(); ++e) order.offsets[e] += order.offsets[e - 1];
  BlockVector<Index> next(order.offsets.begin(), order.offsets.end() - 1);
  for (Index t = 0; t < T; ++t)
    for (Index k = 0; k < K; ++k) {
      const Index row = next[static_cast<std::size_t>(indices(t, k))]++;
      order.token[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(t);
      order.slot[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(k);
      order.row[static_cast<std::size_t>(t * K + k)] = static_cast<std::int32_t>(row);
    }
  return order;
}

namespace reference {

template <class T>
void combine_experts(View2<const T> rows, const ExpertOrder& order, View2<const T> weights,
                     View2<T> y) {
  const Index K = weights.extent(1);
  for (Index t = 0; t < y.extent(0); ++t)
    for (Index k = 0; k < K; ++k) {
      const Index r = order.row[static_cast<std::size_t>(t * K + k)];
      for (Index d = 0; d < y.extent(1); ++d) y(t, d) += weights(t, k) * rows(r, d);
    }
}

template <class T>
void combine_experts_backward(View2<const T> dy, View2<const T> rows, const ExpertOrder& order,
                              View2<const T> weights, View2<T> drows, View2<T> dweights) {
  const Index K = weights.extent(1);
  for (Index t = 0; t < dy.extent(0); ++t)
    for (Index k = 0; k < K; ++k) {
      const Index r = order.row[static_cast<std::size_t>(t * K + k)];
      T dot = 0;
      for (Index d = 0; d < dy.extent(1); ++d) {
        drows(r, d) = weights(t, k) * dy(t, d);
        dot += dy(t, d) * rows(r, d);
      }
      dweights(t, k) = dot;
    }
}

template <class T>
void gather_tokens_backward(View2<const T> drows, const ExpertOrder& order, View2<T> dx) {
  const Index K = choices_per_token("gather_tokens_backward", order, dx.extent(0));
  for (Index t = 0; t < dx.extent(0); ++t)
    for (Index k = 0; k < K; ++k) {
      const Index r = order.row[static_cast<std::size_t>(t * K + k)];
      for (Index d = 0; d < dx.extent(1); ++d) dx(t, d) += drows(r, d);
    }
}

#define MINKE_INSTANTIATE(T)                                                                   \
  template void combine_experts(View2<const T>, const ExpertOrder&, View2<const T>, View2<T>); \
  template void combine_experts_backward(View2<const T>, View2<const T>, const ExpertOrder&,   \
                                         View2<const T>, View2<T>, View2<T>);                  \
  template void gather_tokens_backward(View2<const T>, const ExpertOrder&, View2<T>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace reference

void gather_tokens(View2<const E4M3> x, const ExpertOrder& order, View2<E4M3> rows) {
  gather(x, order, rows);
}
void gather_tokens(View2<const float> x, const ExpertOrder& order, View2<float> rows) {
  gather(x, order, rows);
}
void gather_tokens(View2<const double> x, const ExpertOrder& order, View2<double> rows) {
  gather(x, order, rows);
}
void gather_tokens(View2<const BF16> x, const ExpertOrder& order, View2<BF16> rows) {
  gather(x, order, rows);
}

void sum_rows(View2<const float> rows, const RowSums<float>& sums, View2<float> y) {
  const Index D = y.extent(1);
  const auto& kernels = elementwise();
  sum_listed(sums, y, [&](float weight, Index r, float* sum) {
    kernels.add_scaled(weight, rows[r].data(), sum, D);
  });
}
void sum_rows(View2<const double> rows, const RowSums<double>& sums, View2<double> y) {
  sum_listed(sums, y, [&](double weight, Index r, double* sum) {
    for (Index d = 0; d < y.extent(1); ++d) sum[d] += weight * rows(r, d);
  });
}

void combine_experts(View2<const float> rows, const ExpertOrder& order, View2<const float> weights,
                     View2<float> y) {
  const Index T = y.extent(0), D = y.extent(1);
  const Index K = choices_per_token("combine_experts", order, T, weights.extent(1));
  check_extents("combine_experts", "rows", rows, {T * K, D});
  check_extents("combine_experts", "weights", weights, {T, K});
  const auto& kernels = elementwise();
  each_row(y, [&](Index t, float* sum) {
    for (Index k = 0; k < K; ++k)
      kernels.add_scaled(weights(t, k), rows[order.row[static_cast<std::size_t>(t * K + k)]].data(),
                         sum, D);
  });
}

namespace {

template <class To>
void combine_backward(View2<const float> dy, View2<const float> rows, const ExpertOrder& order,
                      View2<const float> weights, View2<To> drows, View2<float> dweights) {
  const Index T = dy.extent(0), D = dy.extent(1);
  const Index K = choices_per_token("combine_experts_backward", order, T, weights.extent(1));
  check_extents("combine_experts_backward", "rows", rows, {T * K, D});
  check_extents("combine_experts_backward", "weights", weights, {T, K});
  check_extents("combine_experts_backward", "drows", drows, {T * K, D});
  check_extents("combine_experts_backward", "dweights", dweights, {T, K});
  const auto& kernels = elementwise().to<To>();
  each_row(dweights, [&](Index t, float* dweight) {
    for (Index k = 0; k < K; ++k) {
      const Index r = order.row[static_cast<std::size_t>(t * K + k)];
      dweight[k] =
          kernels.scale_and_dot(weights(t, k), dy[t].data(), rows[r].data(), drows[r].data(), D);
    }
  });
}

}  // namespace

void combine_experts_backward(View2<const float> dy, View2<const float> rows,
                              const ExpertOrder& order, View2<const float> weights,
                              View2<float> drows, View2<float> dweights) {
  combine_backward(dy, rows, order, weights, drows, dweights);
}
void combine_experts_backward(View2<const float> dy, View2<const float> rows,
                              const ExpertOrder& order, View2<const float> weights,
                              View2<BF16> drows, View2<float> dweights) {
  combine_backward(dy, rows, order, weights, drows, dweights);
}

void gather_tokens_backward(View2<const float> drows, const ExpertOrder& order, View2<float> dx) {
  const Index T = dx.extent(0), D = dx.extent(1);
  const Index K = choices_per_token("gather_tokens_backward", order, T);
  check_extents("gather_tokens_backward", "drows", drows, {T * K, D});
  const auto& kernels = elementwise();
  each_row(dx, [&](Index t, float* sum) {
    for (Index k = 0; k < K; ++k)
      kernels.add_scaled(1, drows[order.row[static_cast<std::size_t>(t * K + k)]].data(), sum, D);
  });
}

void combine_experts(View2<const double> rows, const ExpertOrder& order,
                     View2<const double> weights, View2<double> y) {
  reference::combine_experts(rows, order, weights, y);
}

void combine_experts_backward(View2<const double> dy, View2<const double> rows,
                              const ExpertOrder& order, View2<const double> weights,
                              View2<double> drows, View2<double> dweights) {
  reference::combine_experts_backward(dy, rows, order, weights, drows, dweights);
}

void gather_tokens_backward(View2<const double> drows, const ExpertOrder& order, View2<double> dx) {
  reference::gather_tokens_backward(drows, order, dx);
}

void add(View2<const float> a, View2<const float> b, View2<float> y) {
  add_rows(a, b, y);
}

void add_to(View2<const float> a, View2<float> y) {
  add_rows<float>(y, a, y);
}
void add_to(View2<const double> a, View2<double> y) {
  add_rows<double>(y, a, y);
}

void copy(View2<const float> from, View2<float> to) {
  convert_rows(from, to);
}
void copy(View2<const double> from, View2<double> to) {
  convert_rows(from, to);
}
void copy(View2<const float> from, View2<BF16> to) {
  check_extents("copy", "to", to, {from.extent(0), from.extent(1)});
  const auto& kernels = elementwise();
  each_row(to, [&](Index t, BF16* row) { kernels.narrow(from[t].data(), row, from.extent(1)); });
}
void copy(View2<const BF16> from, View2<float> to) {
  convert_rows(from, to);
}
Tensor rounded_to_bf16(View2<const float> x) {
  Tensor y = Tensor::uninitialized<BF16>({x.extent(0), x.extent(1)});
  copy(x, y.v2<BF16>());
  return y;
}
void copy(View2<const float> from, View2<double> to) {
  convert_rows(from, to);
}

void fill(View2<float> y, float value) {
  each_row(y, [&](Index, float* row) { std::fill_n(row, y.extent(1), value); });
}
void fill(View2<double> y, double value) {
  each_row(y, [&](Index, double* row) { std::fill_n(row, y.extent(1), value); });
}

}  // namespace minke

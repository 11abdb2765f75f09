// Tokens to experts and back: one counting sort, gathers, and weighted sums in a fixed order.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/block_cache.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"
#include "tensor/view.h"

namespace minke {

struct ExpertOrder {
  BlockVector<Index> offsets;       // [E + 1]: rows [offsets[e], offsets[e+1]) belong to expert e
  BlockVector<std::int32_t> token;  // [T * K]: token of a row; tokens rise within an expert
  BlockVector<std::int32_t> slot;   // [T * K]: k of a row, its place in the token's choice
  BlockVector<std::int32_t> row;    // [T * K]: row of (t, k) at t * K + k
};

// indices [T, K] -> where each (token, choice) goes. No token is ever dropped.
ExpertOrder sort_by_expert(View2<const std::int32_t> indices, Index n_experts);

// x [T, D] -> rows [T * K, D]: rows[r] = x[order.token[r]].
void gather_tokens(View2<const float> x, const ExpertOrder& order, View2<float> rows);
void gather_tokens(View2<const E4M3> x, const ExpertOrder& order, View2<E4M3> rows);
void gather_tokens(View2<const BF16> x, const ExpertOrder& order, View2<BF16> rows);

// Sums of any number of rows, in the order listed: y[t] += sum_j weight[j] rows[row[j]] for j in
// [first[t], first[t + 1]).
template <class Real>
struct RowSums {
  BlockVector<Index> first;       // [T + 1]
  BlockVector<std::int32_t> row;  // [first.back()]
  BlockVector<Real> weight;       // likewise; empty: 1
};
void sum_rows(View2<const float> rows, const RowSums<float>& sums, View2<float> y);
void sum_rows(View2<const double> rows, const RowSums<double>& sums, View2<double> y);

// y[t] += sum_k weights[t, k] rows[row(t, k)], k rising.
void combine_experts(View2<const float> rows, const ExpertOrder& order, View2<const float> weights,
                     View2<float> y);

// drows[row(t, k)] = weights[t, k] dy[t];  dweights[t, k] = dy[t] . rows[row(t, k)].
void combine_experts_backward(View2<const float> dy, View2<const float> rows,
                              const ExpertOrder& order, View2<const float> weights,
                              View2<float> drows, View2<float> dweights);
// drows rounded to BF16: the operand of products that would round it.
void combine_experts_backward(View2<const float> dy, View2<const float> rows,
                              const ExpertOrder& order, View2<const float> weights,
                              View2<BF16> drows, View2<float> dweights);

// The gradient of gather_tokens: dx[t] += sum_k drows[row(t, k)], k rising.
void gather_tokens_backward(View2<const float> drows, const ExpertOrder& order, View2<float> dx);

// In double.
void gather_tokens(View2<const double> x, const ExpertOrder& order, View2<double> rows);
void combine_experts(View2<const double> rows, const ExpertOrder& order,
                     View2<const double> weights, View2<double> y);
void combine_experts_backward(View2<const double> dy, View2<const double> rows,
                              const ExpertOrder& order, View2<const double> weights,
                              View2<double> drows, View2<double> dweights);
void gather_tokens_backward(View2<const double> drows, const ExpertOrder& order, View2<double> dx);

// y = a + b and y += a, element by element; extents agree, y may be a or b.
void add(View2<const float> a, View2<const float> b, View2<float> y);
void add_to(View2<const float> a, View2<float> y);
void add_to(View2<const double> a, View2<double> y);
// Copies rows (either side may be strided).
void copy(View2<const float> from, View2<float> to);
void copy(View2<const double> from, View2<double> to);
// Copies between element types: BF16(x) rounds to nearest even, the others widen.
void copy(View2<const float> from, View2<BF16> to);
void copy(View2<const BF16> from, View2<float> to);
Tensor rounded_to_bf16(View2<const float> x);
void copy(View2<const float> from, View2<double> to);
void fill(View2<float> y, float value);
void fill(View2<double> y, double value);

namespace reference {
template <class T>
void combine_experts(View2<const T> rows, const ExpertOrder& order, View2<const T> weights,
                     View2<T> y);
template <class T>
void combine_experts_backward(View2<const T> dy, View2<const T> rows, const ExpertOrder& order,
                              View2<const T> weights, View2<T> drows, View2<T> dweights);
template <class T>
void gather_tokens_backward(View2<const T> drows, const ExpertOrder& order, View2<T> dx);
}  // namespace reference

}  // namespace minke

#include "ops/linear.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "ops/gemm.h"
#include "ops/int4_weights.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 16;  // rows of a piece of work in double

template <class T>
void check_product(View2<const T> x, const PackedWeights& w, View2<float> y) {
  if (x.extent(1) != w.k() || y.extent(1) != w.n() || x.extent(0) != y.extent(0))
    throw ShapeError(fmt::format(
        "a product of x [{}, {}] and weights [{}, {}] into y [{}, {}]: x needs a column for each "
        "column of the weights, y a row for each row of x and a column for each row of the weights",
        x.extent(0), x.extent(1), w.n(), w.k(), y.extent(0), y.extent(1)));
}

void check_codes(const PackedWeights& w) {
  if (w.form() != WeightForm::E4m3)
    throw ShapeError("FP8 arithmetic needs weights in form E4M3: pack codes and scales");
}

template <class T, class Real>
void check_gradient(View2<const T> dy, View2<const T> x, View2<Real> dw) {
  if (dy.extent(0) != x.extent(0) || dw.extent(0) != dy.extent(1) || dw.extent(1) != x.extent(1))
    throw ShapeError(fmt::format(
        "a weight gradient [{}, {}] of dy [{}, {}] and x [{}, {}]; expected as many rows in dy as "
        "in x, and [columns of dy, columns of x]",
        dw.extent(0), dw.extent(1), dy.extent(0), dy.extent(1), x.extent(0), x.extent(1)));
}

void check_offsets(std::span<const Index> offsets, std::size_t groups, Index rows) {
  bool right = offsets.size() == groups + 1 && offsets.front() >= 0 && offsets.back() <= rows;
  for (std::size_t e = 0; right && e < groups; ++e) right = offsets[e] <= offsets[e + 1];
  if (!right)
    throw ShapeError(
        fmt::format("{} offsets for {} experts and {} rows; expected {} that do not "
                    "fall, from at least 0 to at most the number of rows",
                    offsets.size(), groups, rows, groups + 1));
}

// All weights of a call have one form.
void multiply_products(std::span<const gemm::Product> products, Write write,
                       gemm::Arithmetic arithmetic) {
  if (!products.empty() && products.front().w->form() == WeightForm::Int4) {
    MINKE_ASSERT(arithmetic == gemm::Arithmetic::OfForm);
    return int4::multiply(products, write);
  }
  gemm::multiply(products, write, arithmetic);
}

gemm::Product rows_of(View2<const float> x, const PackedWeights& w, View2<float> y, Index first,
                      Index rows) {
  check_product(x.rows(first, rows), w, y.rows(first, rows));
  return {.x = x.rows(first, rows), .w = &w, .y = y.rows(first, rows)};
}

gemm::Product rows_of(View2<const BF16> x, const PackedWeights& w, View2<float> y, Index first,
                      Index rows) {
  check_product(x.rows(first, rows), w, y.rows(first, rows));
  if (w.form() == WeightForm::F32 || w.form() == WeightForm::Int4)
    throw ShapeError("a product of BF16 rows needs weights in form Bf16 or E4m3");
  return {.w = &w, .y = y.rows(first, rows), .narrow_x = x.rows(first, rows)};
}

gemm::Product rows_of(const Fp8View& x, const PackedWeights& w, View2<float> y, Index first,
                      Index rows) {
  check_product(x.codes.rows(first, rows), w, y.rows(first, rows));
  if (w.form() == WeightForm::F32 || w.form() == WeightForm::Int4)
    throw ShapeError("a product of FP8 rows needs weights in form Bf16 or E4m3");
  MINKE_ASSERT(w.form() == WeightForm::E4m3 || powers_of_two(x.scales));
  return {.w = &w, .y = y.rows(first, rows), .x_codes = x.rows(first, rows)};
}

template <class Rows>
void multiply_grouped(const Rows& x, Index n_rows, std::span<const Index> offsets,
                      std::span<const PackedWeights* const> w, View2<float> y, Write write,
                      gemm::Arithmetic arithmetic) {
  check_offsets(offsets, w.size(), n_rows);
  BlockVector<gemm::Product> products;
  products.reserve(w.size());
  for (std::size_t e = 0; e < w.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    if (rows == 0) continue;
    products.push_back(rows_of(x, *w[e], y, first, rows));
    if (arithmetic == gemm::Arithmetic::Fp8) check_codes(*w[e]);
  }
  multiply_products(products, write, arithmetic);
}

gemm::Arithmetic arithmetic_of(const PackedWeights& w) {
  return w.form() == WeightForm::E4m3 ? gemm::Arithmetic::Fp8 : gemm::Arithmetic::OfForm;
}

// The tiles from `tile` on; nothing where scales are in the values.
View2<const float> tile_scales(const Fp8Columns& columns, Index tile, Index tiles) {
  return columns.scales.defined() ? columns.scales.v2().rows(tile, tiles) : View2<const float>{};
}

gemm::Gradient gradient_of(View2<const float> dy, View2<const float> x, View2<float> dw) {
  return {.dy = dy, .x = x, .dw = dw};
}
gemm::Gradient gradient_of(View2<const BF16> dy, View2<const BF16> x, View2<float> dw) {
  return {.dw = dw, .narrow_dy = dy, .narrow_x = x};
}

// T is float or BF16.
template <class T>
void add_gradients(View2<const T> dy, View2<const T> x, std::span<const Index> offsets,
                   std::span<const View2<float>> dw, Precision precision) {
  check_offsets(offsets, dw.size(), x.extent(0));
  std::vector<gemm::Gradient> gradients;
  gradients.reserve(dw.size());
  for (std::size_t e = 0; e < dw.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    if (rows == 0) continue;
    check_gradient(dy.rows(first, rows), x.rows(first, rows), dw[e]);
    gradients.push_back(gradient_of(dy.rows(first, rows), x.rows(first, rows), dw[e]));
  }
  gemm::multiply_gradients(gradients, precision);
}

// All rows.
template <class T>
void add_gradient(View2<const T> dy, View2<const T> x, View2<float> dw, Precision precision) {
  check_gradient(dy, x, dw);
  const gemm::Gradient gradient = gradient_of(dy, x, dw);
  gemm::multiply_gradients({&gradient, 1}, precision);
}

}  // namespace

void linear(View2<const float> x, const PackedWeights& w, View2<float> y, Write write) {
  check_product(x, w, y);
  const gemm::Product product{.x = x, .w = &w, .y = y};
  multiply_products({&product, 1}, write, gemm::Arithmetic::OfForm);
}

void linear(View2<const BF16> x, const PackedWeights& w, View2<float> y, Write write) {
  const gemm::Product product = rows_of(x, w, y, 0, x.extent(0));
  gemm::multiply({&product, 1}, write, gemm::Arithmetic::OfForm);
}

void linear_fp8(View2<const float> x, const PackedWeights& w, View2<float> y, Write write) {
  check_product(x, w, y);
  check_codes(w);
  const gemm::Product product{.x = x, .w = &w, .y = y};
  multiply_products({&product, 1}, write, gemm::Arithmetic::Fp8);
}

void linear_grouped(View2<const float> x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y, Write write) {
  multiply_grouped(x, x.extent(0), offsets, w, y, write, gemm::Arithmetic::OfForm);
}

void linear_grouped(View2<const BF16> x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y, Write write) {
  multiply_grouped(x, x.extent(0), offsets, w, y, write, gemm::Arithmetic::OfForm);
}

void linear_fp8_grouped(View2<const float> x, std::span<const Index> offsets,
                        std::span<const PackedWeights* const> w, View2<float> y, Write write) {
  multiply_grouped(x, x.extent(0), offsets, w, y, write, gemm::Arithmetic::Fp8);
}

void linear(const Fp8View& x, const PackedWeights& w, View2<float> y, Write write) {
  const gemm::Product product = rows_of(x, w, y, 0, x.codes.extent(0));
  gemm::multiply({&product, 1}, write, arithmetic_of(w));
}

void linear_grouped(const Fp8View& x, std::span<const Index> offsets,
                    std::span<const PackedWeights* const> w, View2<float> y, Write write) {
  if (!w.empty())
    multiply_grouped(x, x.codes.extent(0), offsets, w, y, write, arithmetic_of(*w.front()));
}

void linear_weight_gradient(const Fp8Columns& dy, const Fp8Columns& x, View2<float> dw) {
  const Index offsets[] = {0, x.values.extent(0)};
  linear_weight_gradient_grouped(dy, x, offsets, {&dw, 1});
}

void linear_weight_gradient_grouped(const Fp8Columns& dy, const Fp8Columns& x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw) {
  check_offsets(offsets, dw.size(), x.values.extent(0));
  std::vector<gemm::Gradient> gradients;
  gradients.reserve(dw.size());
  Index tile = 0;
  for (std::size_t e = 0; e < dw.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    if (rows == 0) continue;
    const Index tiles = block_count(rows, kFp8Tile);
    const View2<const BF16> dy_rows = dy.values.v2<BF16>().rows(first, rows);
    const View2<const BF16> x_rows = x.values.v2<BF16>().rows(first, rows);
    check_gradient(dy_rows, x_rows, dw[e]);
    gradients.push_back({.dw = dw[e],
                         .narrow_dy = dy_rows,
                         .narrow_x = x_rows,
                         .dy_scales = tile_scales(dy, tile, tiles),
                         .x_scales = tile_scales(x, tile, tiles)});
    tile += tiles;
  }
  gemm::multiply_gradients(gradients, Precision::Bf16);
}

void linear_weight_gradient(View2<const float> dy, View2<const float> x, View2<float> dw,
                            Precision precision) {
  add_gradient(dy, x, dw, precision);
}

void linear_weight_gradient(View2<const BF16> dy, View2<const BF16> x, View2<float> dw) {
  add_gradient(dy, x, dw, Precision::Bf16);
}

void linear_weight_gradient_grouped(View2<const float> dy, View2<const float> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw, Precision precision) {
  add_gradients(dy, x, offsets, dw, precision);
}

void linear_weight_gradient_grouped(View2<const BF16> dy, View2<const BF16> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<float>> dw) {
  add_gradients(dy, x, offsets, dw, Precision::Bf16);
}

namespace reference {

template <class T>
void linear(View2<const T> x, View2<const T> w, View2<T> y, Write write) {
  for (Index t = 0; t < x.extent(0); ++t)
    for (Index n = 0; n < w.extent(0); ++n) {
      T sum = write == Write::Add ? y(t, n) : T{0};
      for (Index k = 0; k < w.extent(1); ++k) sum += x(t, k) * w(n, k);
      y(t, n) = sum;
    }
}

// y[t, n] = sum_k x[t, k] W[n, k], so dx[t, k] = sum_n dy[t, n] W[n, k].
template <class T>
void linear_backward_input(View2<const T> dy, View2<const T> w, View2<T> dx, Write write) {
  for (Index t = 0; t < dy.extent(0); ++t)
    for (Index k = 0; k < w.extent(1); ++k) {
      T sum = write == Write::Add ? dx(t, k) : T{0};
      for (Index n = 0; n < w.extent(0); ++n) sum += dy(t, n) * w(n, k);
      dx(t, k) = sum;
    }
}

// dW[n, k] += sum_t dy[t, n] x[t, k].
template <class T>
void linear_weight_gradient(View2<const T> dy, View2<const T> x, View2<T> dw) {
  for (Index n = 0; n < dw.extent(0); ++n)
    for (Index k = 0; k < dw.extent(1); ++k)
      for (Index t = 0; t < x.extent(0); ++t) dw(n, k) += dy(t, n) * x(t, k);
}

void linear_fp8(const Fp8View& x, const Fp8View& w, View2<float> y) {
  for (Index t = 0; t < y.extent(0); ++t)
    for (Index n = 0; n < y.extent(1); ++n)
      for (Index k = 0; k < x.codes.extent(1); k += kFp8Tile) {
        float sum = 0;
        for (Index i = k; i < std::min(k + kFp8Tile, x.codes.extent(1)); ++i)
          sum += float(x.codes(t, i)) * float(w.codes(n, i));
        y(t, n) += sum * x.scales(t, k / kFp8Tile) * w.scales(n / kFp8Tile, k / kFp8Tile);
      }
}

template void linear(View2<const float>, View2<const float>, View2<float>, Write);
template void linear(View2<const double>, View2<const double>, View2<double>, Write);
template void linear_backward_input(View2<const float>, View2<const float>, View2<float>, Write);
template void linear_backward_input(View2<const double>, View2<const double>, View2<double>, Write);
template void linear_weight_gradient(View2<const float>, View2<const float>, View2<float>);
template void linear_weight_gradient(View2<const double>, View2<const double>, View2<double>);

}  // namespace reference
void linear(View2<const double> x, View2<const double> w, View2<double> y, Write write) {
  parallel_ranges(x.extent(0), kRowGrain, [&](Index begin, Index end) {
    reference::linear(x.rows(begin, end - begin), w, y.rows(begin, end - begin), write);
  });
}

void linear_backward_input(View2<const double> dy, View2<const double> w, View2<double> dx,
                           Write write) {
  parallel_ranges(dy.extent(0), kRowGrain, [&](Index begin, Index end) {
    reference::linear_backward_input(dy.rows(begin, end - begin), w, dx.rows(begin, end - begin),
                                     write);
  });
}

void linear_weight_gradient(View2<const double> dy, View2<const double> x, View2<double> dw,
                            [[maybe_unused]] Precision precision) {
  MINKE_ASSERT(precision == Precision::Full);
  check_gradient(dy, x, dw);
  parallel_ranges(dw.extent(0), kRowGrain, [&](Index begin, Index end) {
    reference::linear_weight_gradient(dy.columns(begin, end - begin), x,
                                      dw.rows(begin, end - begin));
  });
}

void linear_weight_gradient_grouped(View2<const double> dy, View2<const double> x,
                                    std::span<const Index> offsets,
                                    std::span<const View2<double>> dw, Precision precision) {
  check_offsets(offsets, dw.size(), x.extent(0));
  for (std::size_t e = 0; e < dw.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    linear_weight_gradient(dy.rows(first, rows), x.rows(first, rows), dw[e], precision);
  }
}

}  // namespace minke

#include "ops/linear.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "ops/gemm.h"
#include "ops/int4_weights.h"
#include "ops/product_rows.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 16;  // rows of a piece of work in double

template <class T, class Real>
void check_gradient(View2<const T> dy, View2<const T> x, View2<Real> dw) {
  if (dy.extent(0) != x.extent(0) || dw.extent(0) != dy.extent(1) || dw.extent(1) != x.extent(1))
    throw ShapeError(fmt::format(
        "a weight gradient [{}, {}] of dy [{}, {}] and x [{}, {}]; expected as many rows in dy as "
        "in x, and [columns of dy, columns of x]",
        dw.extent(0), dw.extent(1), dy.extent(0), dy.extent(1), x.extent(0), x.extent(1)));
}

// All weights of a call have one form.
void multiply_products(std::span<const gemm::Product> products, gemm::Arithmetic arithmetic) {
  if (!products.empty() && products.front().w->form() == WeightForm::Int4) {
    MINKE_ASSERT(arithmetic == gemm::Arithmetic::OfForm);
    return int4::multiply(products);
  }
  gemm::multiply(products, arithmetic);
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
    products.push_back(rows_of(x, *w[e], y, first, rows, write));
    if (arithmetic == gemm::Arithmetic::Fp8) check_codes(*w[e]);
  }
  multiply_products(products, arithmetic);
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
  const gemm::Product product = rows_of(x, w, y, 0, x.extent(0), write);
  multiply_products({&product, 1}, gemm::Arithmetic::OfForm);
}

void linear(View2<const BF16> x, const PackedWeights& w, View2<float> y, Write write) {
  check_product(x, w, y);
  const gemm::Product product = rows_of(x, w, y, 0, x.extent(0), write);
  gemm::multiply({&product, 1}, gemm::Arithmetic::OfForm);
}

void linear_fp8(View2<const float> x, const PackedWeights& w, View2<float> y, Write write) {
  check_product(x, w, y);
  check_codes(w);
  const gemm::Product product = rows_of(x, w, y, 0, x.extent(0), write);
  multiply_products({&product, 1}, gemm::Arithmetic::Fp8);
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
  check_product(x.codes, w, y);
  const gemm::Product product = rows_of(x, w, y, 0, x.codes.extent(0), write);
  gemm::multiply({&product, 1}, arithmetic_of(w));
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

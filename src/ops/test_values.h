// What the tests of ops/ share: random tensors, comparison with a stated error, every instruction
// set of this machine, gradients by central differences.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "base/threads.h"
#include "ops/isa.h"
#include "tensor/tensor.h"

namespace minke::test {

// Values of unit size, the same for the same seed.
template <class T = float>
std::vector<T> random_values(Index n, std::uint64_t seed, double scale = 1) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& v : values) v = static_cast<T>(normal(generator));
  return values;
}

// Owns [rows, columns] numbers and gives views of them; rows may lie apart, the gaps hold NaN.
template <class T = float>
struct Matrix {
  Index rows = 0, columns = 0, stride = 0;
  std::vector<T> data;

  Matrix(Index rows, Index columns, Index gap = 0)
      : rows(rows),
        columns(columns),
        stride(columns + gap),
        data(static_cast<std::size_t>(rows * (columns + gap)),
             std::numeric_limits<T>::quiet_NaN()) {
    fill(T(0.0f));
  }
  static Matrix random(Index rows, Index columns, std::uint64_t seed, double scale = 1,
                       Index gap = 0) {
    Matrix m(rows, columns, gap);
    const std::vector<T> values = random_values<T>(rows * columns, seed, scale);
    for (Index i = 0; i < rows * columns; ++i)
      m(i / columns, i % columns) = values[static_cast<std::size_t>(i)];
    return m;
  }
  void fill(T value) {
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) (*this)(r, c) = value;
  }
  T& operator()(Index r, Index c) { return data[static_cast<std::size_t>(r * stride + c)]; }
  T operator()(Index r, Index c) const { return data[static_cast<std::size_t>(r * stride + c)]; }
  View2<T> view() { return View2<T>(data.data(), {rows, columns}, {stride, 1}); }
  View2<const T> view() const { return View2<const T>(data.data(), {rows, columns}, {stride, 1}); }
  View1<T> flat() { return View1<T>(data.data(), {rows * columns}); }  // without gaps
  View1<const T> flat() const { return View1<const T>(data.data(), {rows * columns}); }
  template <class U>
  Matrix<U> as() const {
    Matrix<U> m(rows, columns);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) m(r, c) = static_cast<U>((*this)(r, c));
    return m;
  }
};

// |a - b| <= absolute + relative |b| everywhere; says where it is worst.
template <class A, class B>
void expect_near(const Matrix<A>& a, const Matrix<B>& b, double absolute, double relative = 0,
                 const char* what = "") {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.columns, b.columns);
  double worst = -1;
  Index at_row = 0, at_column = 0;
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.columns; ++c) {
      const double x = static_cast<double>(a(r, c)), y = static_cast<double>(b(r, c));
      double excess = std::abs(x - y) - absolute - relative * std::abs(y);
      if (std::isnan(excess)) excess = std::numeric_limits<double>::infinity();
      if (x == y) excess = -absolute;
      if (excess > worst) worst = excess, at_row = r, at_column = c;
    }
  EXPECT_LE(worst, 0) << what << " at (" << at_row << ", " << at_column
                      << "): " << a(at_row, at_column) << " instead of " << b(at_row, at_column)
                      << ", allowed " << absolute << " + " << relative << " relative";
}

template <class T>
void expect_same_bits(const Matrix<T>& a, const Matrix<T>& b, const char* what = "") {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.columns, b.columns);
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.columns; ++c)
      ASSERT_EQ(a(r, c), b(r, c)) << what << " at (" << r << ", " << c << ")";
}

// `narrow` is `wide`, rounded.
inline void expect_rounded(const Matrix<BF16>& narrow, const Matrix<float>& wide,
                           const char* what = "") {
  ASSERT_EQ(narrow.rows, wide.rows);
  ASSERT_EQ(narrow.columns, wide.columns);
  for (Index r = 0; r < wide.rows; ++r)
    for (Index c = 0; c < wide.columns; ++c)
      ASSERT_EQ(narrow(r, c).bits, BF16(wide(r, c)).bits)
          << what << " at (" << r << ", " << c << ")";
}

// Runs `body` with every instruction set of this machine, and leaves the best one chosen.
inline void on_every_isa(const std::function<void()>& body) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(std::string(name_of(isa)));
    choose_isa(isa);
    body();
  }
  choose_isa(available_isas().back());
}

// d f / d x[i] by central differences against `gradient`, for every element of x. f reads x.
inline void expect_gradient(std::vector<double>& x, const std::vector<double>& gradient,
                            const std::function<double()>& f, double tolerance = 1e-7) {
  ASSERT_EQ(x.size(), gradient.size());
  constexpr double h = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + h;
    const double above = f();
    x[i] = kept - h;
    const double below = f();
    x[i] = kept;
    EXPECT_NEAR((above - below) / (2 * h), gradient[i], tolerance * (1 + std::abs(gradient[i])))
        << "element " << i;
  }
}

// The sum of the products of all elements: a scalar whose gradient with respect to y is `weights`.
inline double weighted_sum(const Matrix<double>& y, const Matrix<double>& weights) {
  double sum = 0;
  for (Index r = 0; r < y.rows; ++r)
    for (Index c = 0; c < y.columns; ++c) sum += y(r, c) * weights(r, c);
  return sum;
}

}  // namespace minke::test

#include "ops/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "base/threads.h"
#include "ops/isa.h"
#include "ops/test_values.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

// Numbers of a matrix with rows further apart than they are long.
struct Matrix {
  Index rows, columns, stride;
  std::vector<float> data;

  Matrix(Index rows, Index columns, Index gap = 0)
      : rows(rows), columns(columns), stride(columns + gap), data(rows * stride, 0.0f) {}
  static Matrix random(Index rows, Index columns, unsigned seed, Index gap = 0) {
    Matrix m(rows, columns, gap);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (float& v : m.data) v = normal(generator);
    return m;
  }
  View2<float> view() { return {data.data(), {rows, columns}, {stride, 1}}; }
  View2<const float> view() const { return {data.data(), {rows, columns}, {stride, 1}}; }
  float operator()(Index r, Index c) const { return data[r * stride + c]; }
  Matrix rounded() const {
    Matrix m = *this;
    for (float& v : m.data) v = round_to_bf16(v);
    return m;
  }
  Matrix transposed() const {
    Matrix m(columns, rows);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) m.data[c * rows + r] = (*this)(r, c);
    return m;
  }
};

// Every row of the table that this machine can run, and back to the best one.
template <class Body>
void for_each_isa(Body body) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name_of(isa));
    choose_isa(isa);
    body();
  }
  choose_isa(available_isas().back());
}

// A sum of K products in FP32, in any order, is off by at most K + 1 roundings of sum |x w|.
void expect_product(const Matrix& x, const Matrix& w, const Matrix* before, const Matrix& y) {
  double worst = 0;
  for (Index t = 0; t < x.rows; ++t)
    for (Index n = 0; n < w.rows; ++n) {
      double sum = before ? (*before)(t, n) : 0.0, size = std::fabs(sum);
      for (Index k = 0; k < x.columns; ++k) {
        sum += double(x(t, k)) * w(n, k);
        size += std::fabs(double(x(t, k)) * w(n, k));
      }
      const double allowed = (x.columns + 2) * 0x1p-24 * size;
      const double error = std::fabs(sum - y(t, n));
      ASSERT_LE(error, allowed) << "row " << t << " column " << n << " of [" << x.rows << ", "
                                << w.rows << "], K " << x.columns << ": " << y(t, n)
                                << ", expected " << sum;
      worst = std::max(worst, error / (allowed + 1e-300));
    }
  EXPECT_LE(worst, 1.0);
}

bool same_bits(const Matrix& a, Index row_a, const Matrix& b, Index row_b) {
  for (Index c = 0; c < a.columns; ++c)
    if (std::bit_cast<std::uint32_t>(a(row_a, c)) != std::bit_cast<std::uint32_t>(b(row_b, c)))
      return false;
  return true;
}

struct Extents {
  Index T, N, K;
};
const Extents kExtents[] = {{1, 1, 1},     {2, 3, 2},     {1, 16, 31},   {3, 17, 33},
                            {5, 15, 64},   {6, 64, 17},   {7, 65, 130},  {13, 33, 127},
                            {16, 48, 96},  {17, 129, 65}, {33, 100, 40}, {200, 31, 520},
                            {4, 80, 1500}, {19, 70, 1100}};

Matrix codes_of(const Matrix& w, std::vector<E4M3>& codes, Matrix& scales) {
  codes.resize(w.rows * w.columns);
  scales = Matrix((w.rows + 127) / 128, (w.columns + 127) / 128);
  const View2<E4M3> view(codes.data(), {w.rows, w.columns});
  quantize_blocks<float>(w.view(), kWeightBlock, ScaleForm::Float, view, scales.view());
  Matrix values(w.rows, w.columns);
  for (Index n = 0; n < w.rows; ++n)
    for (Index k = 0; k < w.columns; ++k)
      values.data[n * w.columns + k] =
          round_to_bf16(float(codes[n * w.columns + k]) * scales(n / 128, k / 128));
  return values;
}

struct Weights {
  PackedWeights packed;
  Matrix values;  // what it stands for
};
Weights make_weights(const Matrix& w, WeightForm form) {
  if (form == WeightForm::F32) return {PackedWeights::pack(w.view(), form), w};
  if (form == WeightForm::Bf16) return {PackedWeights::pack(w.view(), form), w.rounded()};
  std::vector<E4M3> codes;
  Matrix scales(0, 0);
  Matrix values = codes_of(w, codes, scales);
  return {PackedWeights::pack(View2<const E4M3>(codes.data(), {w.rows, w.columns}), scales.view()),
          values};
}
constexpr WeightForm kForms[] = {WeightForm::F32, WeightForm::Bf16, WeightForm::E4m3};

TEST(Linear, EveryFormAgreesWithTheDefinitionForRaggedExtents) {
  for_each_isa([] {
    unsigned seed = 1;
    for (const auto& [T, N, K] : kExtents)
      for (WeightForm form : kForms) {
        SCOPED_TRACE(static_cast<int>(form));
        const Matrix x = Matrix::random(T, K, ++seed, 3);
        const Weights w = make_weights(Matrix::random(N, K, ++seed, 5), form);
        const Matrix seen = form == WeightForm::F32 ? x : x.rounded();
        Matrix y = Matrix::random(T, N, ++seed, 2);
        const Matrix before = y;
        linear(x.view(), w.packed, y.view(), Write::Add);
        expect_product(seen, w.values, &before, y);
        for (Index t = 0; t < T; ++t)  // the gaps between rows stay as they were
          for (Index c = N; c < y.stride; ++c)
            ASSERT_EQ(y.data[t * y.stride + c], before.data[t * y.stride + c]);
        linear(x.view(), w.packed, y.view());
        expect_product(seen, w.values, nullptr, y);
      }
  });
}

TEST(Linear, NoRowsIsNoWork) {
  Matrix x(0, 8), y(0, 5);
  const Matrix w = Matrix::random(5, 8, 1);
  for_each_isa([&] {
    for (WeightForm form : kForms) linear(x.view(), make_weights(w, form).packed, y.view());
    Matrix dw(5, 8);
    linear_weight_gradient(y.view(), x.view(), dw.view(), Precision::Bf16);
    for (float v : dw.data) EXPECT_EQ(v, 0.0f);
  });
}

TEST(Linear, TransposedWeightsGiveTheInputGradient) {
  for_each_isa([] {
    unsigned seed = 100;
    for (const auto& [T, N, K] : kExtents)
      for (WeightForm form : {WeightForm::F32, WeightForm::Bf16}) {
        const Matrix dy = Matrix::random(T, K, ++seed), w = Matrix::random(K, N, ++seed, 1);
        Matrix dx(T, N);
        linear(dy.view(), PackedWeights::pack_transposed(w.view(), form), dx.view());
        const bool exact = form == WeightForm::F32;
        expect_product(exact ? dy : dy.rounded(), (exact ? w : w.rounded()).transposed(), nullptr,
                       dx);
      }
  });
}

TEST(Linear, RepackingReplacesTheWeights) {
  for_each_isa([] {
    for (WeightForm form : {WeightForm::F32, WeightForm::Bf16}) {
      const Matrix first = Matrix::random(70, 90, 1), second = Matrix::random(70, 90, 2);
      const Matrix x = Matrix::random(4, 90, 3), dy = Matrix::random(4, 70, 4);
      PackedWeights w = PackedWeights::pack(first.view(), form);
      PackedWeights w_transposed = PackedWeights::pack_transposed(first.view(), form);
      w.repack(second.view());
      w_transposed.repack_transposed(second.view());
      Matrix y(4, 70), dx(4, 90), y_expected(4, 70), dx_expected(4, 90);
      linear(x.view(), w, y.view());
      linear(x.view(), PackedWeights::pack(second.view(), form), y_expected.view());
      linear(dy.view(), w_transposed, dx.view());
      linear(dy.view(), PackedWeights::pack_transposed(second.view(), form), dx_expected.view());
      EXPECT_EQ(y.data, y_expected.data);
      EXPECT_EQ(dx.data, dx_expected.data);
      EXPECT_THROW(w.repack(first.view().rows(0, 69)), ShapeError);
    }
  });
}

TEST(Linear, Bf16WeightsPackWithoutAnotherRounding) {
  const Matrix w = Matrix::random(37, 45, 7).rounded(), x = Matrix::random(3, 45, 8);
  std::vector<BF16> narrow;
  for (float v : w.data) narrow.emplace_back(v);
  for_each_isa([&] {
    Matrix y(3, 37), expected(3, 37);
    linear(x.view(), PackedWeights::pack(View2<const BF16>(narrow.data(), {37, 45})), y.view());
    linear(x.view(), PackedWeights::pack(w.view(), WeightForm::Bf16), expected.view());
    EXPECT_EQ(y.data, expected.data);
  });
}

std::vector<std::byte> bytes_of(const PackedWeights& w) {
  std::vector<std::byte> bytes(PackedWeights::stored_bytes(w.shape()));
  w.store(bytes);
  return bytes;
}

TEST(Linear, PackedBytesAreTheSameForEveryInstructionSet) {
  Matrix w = Matrix::random(50, 70, 9, 2);
  w.data[3] = std::nanf("");
  w.data[4] = 1e-40f;
  w.data[5] = 3.4e38f;
  w.data[6] = -INFINITY;
  for (WeightForm form : {WeightForm::F32, WeightForm::Bf16}) {
    choose_isa(Isa::Scalar);
    const PackedWeights a = PackedWeights::pack(w.view(), form);
    const PackedWeights b = PackedWeights::pack_transposed(w.view(), form);
    for_each_isa([&] {
      const PackedWeights c = PackedWeights::pack(w.view(), form);
      const PackedWeights d = PackedWeights::pack_transposed(w.view(), form);
      EXPECT_EQ(bytes_of(a), bytes_of(c));
      EXPECT_EQ(bytes_of(b), bytes_of(d));
    });
  }
}

TEST(Linear, EveryCodeIsWidenedExactly) {
  // One output per code: a row of x picks the column that holds it.
  std::vector<E4M3> codes(256 * 2);
  for (int i = 0; i < 256; ++i) codes[2 * i].code = static_cast<std::uint8_t>(i);
  Matrix scales(2, 1);
  for (float scale : {1.0f, 0.7f, 3e-5f}) {
    scales.data = {scale, scale * 2};
    for_each_isa([&] {
      const auto w = PackedWeights::pack(View2<const E4M3>(codes.data(), {256, 2}), scales.view());
      for (Index rows : {1, 20}) {
        Matrix x(rows, 2), y(rows, 256);
        for (Index t = 0; t < rows; ++t) x.data[2 * t] = 1.0f;
        linear(x.view(), w, y.view());
        for (int i = 0; i < 256; ++i) {
          const float expected = round_to_bf16(float(codes[2 * i]) * scales(i / 128, 0));
          for (Index t = 0; t < rows; ++t) {
            if (std::isnan(expected))
              EXPECT_TRUE(std::isnan(y(t, i))) << i;
            else
              EXPECT_EQ(y(t, i), expected) << i;
          }
        }
      }
    });
  }
}

TEST(Linear, ARowsBitsDependOnNothingElse) {
  const Index N = 200, K = 1300;
  const Matrix x = Matrix::random(300, K, 11);
  const int threads = n_threads();
  for_each_isa([&] {
    for (WeightForm form : kForms) {
      SCOPED_TRACE(static_cast<int>(form));
      const Weights w = make_weights(Matrix::random(N, K, 12), form);
      for (bool fp8 : {false, true}) {
        if (fp8 && form != WeightForm::E4m3) continue;
        const auto product = [&](Index first, Index rows) {
          Matrix y(rows, N);
          fp8 ? linear_fp8(x.view().rows(first, rows), w.packed, y.view())
              : linear(x.view().rows(first, rows), w.packed, y.view());
          return y;
        };
        const Matrix all = product(0, 300);
        for (int n : {1, 2, 3}) {
          set_threads(n);
          for (Index rows : {1, 5, 17, 300}) {
            const Index first = rows == 300 ? 0 : 100;
            const Matrix some = product(first, rows);
            for (Index t = 0; t < rows; ++t)
              ASSERT_TRUE(same_bits(some, t, all, first + t))
                  << rows << " rows, " << n << " threads, row " << t << (fp8 ? ", FP8" : "");
          }
        }
        set_threads(threads);
      }
    }
  });
}

// 192 rows are one task, the two that are left another, and there are several ranges of outputs.
TEST(Linear, TheLastFewOfManyRowsHaveTheBitsOfAFewRows) {
  const Index rows = 194, N = 1300, K = 256;
  const Matrix x = Matrix::random(rows, K, 13);
  const int threads = n_threads();
  for_each_isa([&] {
    for (WeightForm form : kForms) {
      const Weights w = make_weights(Matrix::random(N, K, 14), form);
      Matrix last(2, N);
      linear(x.view().rows(rows - 2, 2), w.packed, last.view());
      for (int n : {1, 2, 3}) {
        set_threads(n);
        Matrix all(rows, N);
        linear(x.view(), w.packed, all.view());
        for (Index t = 0; t < 2; ++t)
          ASSERT_TRUE(same_bits(last, t, all, rows - 2 + t))
              << "form " << static_cast<int>(form) << ", " << n << " threads, row " << t;
      }
      set_threads(threads);
    }
  });
}

TEST(Linear, GroupedIsEachExpertByItself) {
  const std::vector<Index> offsets{0, 0, 5, 6, 6, 40, 40};
  const Index N = 70, K = 150;
  const Matrix x = Matrix::random(41, K, 21);
  for_each_isa([&] {
    for (WeightForm form : kForms) {
      std::vector<Weights> weights;
      std::vector<const PackedWeights*> w;
      for (unsigned e = 0; e + 1 < offsets.size(); ++e)
        weights.push_back(make_weights(Matrix::random(N, K, 30 + e), form));
      for (const Weights& e : weights) w.push_back(&e.packed);
      Matrix y(41, N), expected(41, N);
      linear_grouped(x.view(), offsets, w, y.view());
      for (std::size_t e = 0; e < w.size(); ++e) {
        const Index first = offsets[e], rows = offsets[e + 1] - first;
        linear(x.view().rows(first, rows), *w[e], expected.view().rows(first, rows));
      }
      EXPECT_EQ(y.data, expected.data);
    }
    EXPECT_THROW(linear_grouped(x.view(), std::vector<Index>{0, 2}, {}, Matrix(41, N).view()),
                 ShapeError);
  });
}

TEST(Linear, WeightGradientAgreesWithTheDefinitionAndIsAddedTo) {
  for_each_isa([] {
    unsigned seed = 300;
    for (const auto& [N, K, T] : kExtents)
      for (Precision precision : {Precision::Full, Precision::Bf16}) {
        const Matrix dy = Matrix::random(T, N, ++seed, 1), x = Matrix::random(T, K, ++seed, 4);
        Matrix dw = Matrix::random(N, K, ++seed, 3);
        const Matrix before = dw;
        linear_weight_gradient(dy.view(), x.view(), dw.view(), precision);
        const bool exact = precision == Precision::Full;
        expect_product((exact ? dy : dy.rounded()).transposed(),
                       (exact ? x : x.rounded()).transposed(), &before, dw);
      }
  });
}

TEST(Linear, GroupedWeightGradientIsEachExpertByItselfOnAnyThreads) {
  const std::vector<Index> offsets{0, 0, 5, 6, 6, 340, 340};
  const Matrix x = Matrix::random(341, 130, 41), dy = Matrix::random(341, 300, 42);
  const int threads = n_threads();
  for_each_isa([&] {
    for (Precision precision : {Precision::Full, Precision::Bf16}) {
      std::vector<Matrix> expected;
      for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
        const Index first = offsets[e], rows = offsets[e + 1] - first;
        expected.emplace_back(300, 130);
        linear_weight_gradient(dy.view().rows(first, rows), x.view().rows(first, rows),
                               expected.back().view(), precision);
      }
      for (int n : {1, 2, 3}) {
        set_threads(n);
        std::vector<Matrix> dw(expected.size(), Matrix(300, 130));
        std::vector<View2<float>> views;
        for (Matrix& m : dw) views.push_back(m.view());
        linear_weight_gradient_grouped(dy.view(), x.view(), offsets, views, precision);
        for (std::size_t e = 0; e < dw.size(); ++e) EXPECT_EQ(dw[e].data, expected[e].data);
      }
      set_threads(threads);
    }
  });
}

// More rows than a piece of work, so that the threads share them.
TEST(Linear, InDoubleIsTheDefinitionOnAnyThreads) {
  const Index T = 37, K = 19, N = 23;
  const auto x = test::Matrix<double>::random(T, K, 1), w = test::Matrix<double>::random(N, K, 2);
  const auto dy = test::Matrix<double>::random(T, N, 3);
  test::Matrix<double> y(T, N), dx = test::Matrix<double>::random(T, K, 4),
                                dw = test::Matrix<double>::random(N, K, 5);
  auto y_want = y, dx_want = dx, dw_want = dw;
  reference::linear<double>(x.view(), w.view(), y_want.view(), Write::Overwrite);
  reference::linear_backward_input<double>(dy.view(), w.view(), dx_want.view(), Write::Add);
  reference::linear_weight_gradient<double>(dy.view(), x.view(), dw_want.view());
  for (const int threads : {1, 3}) {
    set_threads(threads);
    auto dx_have = dx, dw_have = dw;
    linear(x.view(), w.view(), y.view());
    linear_backward_input(dy.view(), w.view(), dx_have.view(), Write::Add);
    linear_weight_gradient(dy.view(), x.view(), dw_have.view(), Precision::Full);
    test::expect_same_bits(y, y_want);
    test::expect_same_bits(dx_have, dx_want);
    test::expect_same_bits(dw_have, dw_want);
  }
  set_threads(available_cores());

  // Two experts, one of them without rows.
  const std::vector<Index> offsets{0, T, T};
  auto first = dw, second = dw;
  const std::vector<View2<double>> both{first.view(), second.view()};
  linear_weight_gradient_grouped(dy.view(), x.view(), offsets, both, Precision::Full);
  test::expect_same_bits(first, dw_want);
  test::expect_same_bits(second, dw);
}

TEST(Linear, ExtentsThatDisagreeAreRefused) {
  const Matrix w = Matrix::random(5, 8, 1);
  Matrix x(3, 8), y(3, 5), wrong(3, 6);
  const PackedWeights packed = PackedWeights::pack(w.view(), WeightForm::F32);
  EXPECT_THROW(linear(wrong.view(), packed, y.view()), ShapeError);
  EXPECT_THROW(linear(x.view(), packed, wrong.view()), ShapeError);
  EXPECT_THROW(linear_fp8(x.view(), packed, y.view()), ShapeError);
  EXPECT_THROW(PackedWeights::pack(w.view(), WeightForm::E4m3), ShapeError);
  EXPECT_THROW(linear_weight_gradient(y.view(), x.view(), wrong.view(), Precision::Full),
               ShapeError);
  const std::vector<E4M3> codes(5 * 8);
  EXPECT_THROW(PackedWeights::pack(View2<const E4M3>(codes.data(), {5, 8}), Matrix(1, 2).view()),
               ShapeError);
}

// loss = sum y * c, so dloss/dy = c. The product is bilinear: central differences are exact up to
// rounding.
TEST(LinearReference, GradientsAgreeWithCentralDifferences) {
  const Index T = 3, N = 4, K = 5;
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  std::vector<double> x(T * K), w(N * K), c(T * N), y(T * N), dx(T * K), dw(N * K, 0.0);
  for (auto* v : {&x, &w, &c})
    for (double& e : *v) e = normal(generator);
  const auto view = [](std::vector<double>& v, Index rows, Index columns) {
    return View2<double>(v.data(), {rows, columns});
  };
  using In = View2<const double>;
  const auto loss = [&] {
    reference::linear<double>(In(view(x, T, K)), In(view(w, N, K)), view(y, T, N),
                              Write::Overwrite);
    double sum = 0;
    for (Index i = 0; i < T * N; ++i) sum += y[i] * c[i];
    return sum;
  };
  reference::linear_backward_input<double>(In(view(c, T, N)), In(view(w, N, K)), view(dx, T, K),
                                           Write::Overwrite);
  reference::linear_weight_gradient<double>(In(view(c, T, N)), In(view(x, T, K)), view(dw, N, K));
  const auto check = [&](std::vector<double>& at, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double kept = at[i], h = 1e-3;
      at[i] = kept + h;
      const double above = loss();
      at[i] = kept - h;
      const double below = loss();
      at[i] = kept;
      EXPECT_NEAR((above - below) / (2 * h), gradient[i], 1e-10);
    }
  };
  check(x, dx);
  check(w, dw);
}

}  // namespace
}  // namespace minke

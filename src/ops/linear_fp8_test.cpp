// Products of FP8 training against the dequantised operands, for both kinds of scales.
#include <bit>
#include <cstring>

#include "ops/linear.h"
#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;
using test::on_every_isa;

constexpr ScaleForm kForms[] = {ScaleForm::Float, ScaleForm::PowerOfTwo};

struct Extents {
  Index T, N, K;
};
constexpr Extents kExtents[] = {{1, 1, 1},      {3, 17, 33},  {16, 48, 128}, {33, 130, 129},
                                {200, 31, 257}, {5, 300, 40}, {130, 96, 520}};

// W as products read it, and what it stands for.
struct Fp8Weight {
  Tensor codes, scales;
  Matrix<float> values;
  PackedWeights packed;

  Fp8Weight(const Matrix<float>& w, ScaleForm form)
      : codes(DType::F8_E4M3, {w.rows, w.columns}),
        scales(Tensor::zeros({block_count(w.rows, 128), block_count(w.columns, 128)})),
        values(w.rows, w.columns) {
    fp8_blocks(w.view(), form, codes.view<E4M3, 2>(), scales.v2());
    dequantize_blocks(view().codes, view().scales, kWeightBlock, values.view());
    packed = form == ScaleForm::Float
                 ? PackedWeights::pack(view().codes, view().scales)
                 : PackedWeights::pack(std::as_const(values).view(), WeightForm::Bf16);
  }
  Fp8View view() const { return {codes.view<E4M3, 2>(), scales.v2()}; }
};

Matrix<float> dequantized(const Fp8View& x) {
  Matrix<float> y(x.codes.extent(0), x.codes.extent(1));
  dequantize(x, y.view());
  return y;
}

// y = sum_i a[r, i] b[c, i] in double within what FP32 sums of that length round.
template <class A, class B>
void expect_products(const Matrix<float>& y, Index length, const A& a, const B& b) {
  for (Index r = 0; r < y.rows; ++r)
    for (Index c = 0; c < y.columns; ++c) {
      double sum = 0, size = 0;
      for (Index i = 0; i < length; ++i) {
        const double product = static_cast<double>(a(r, i)) * static_cast<double>(b(c, i));
        sum += product;
        size += std::abs(product);
      }
      // Each addition, and for FP32 scales two products and a scale of each operand.
      ASSERT_NEAR(y(r, c), sum, static_cast<double>(length + 6) * 0x1p-24 * size)
          << r << ", " << c << " over " << length;
    }
}

TEST(LinearFp8, ForwardAndInputGradientAreProductsOfTheDequantisedOperands) {
  for (ScaleForm form : kForms)
    for (const auto& [T, N, K] : kExtents) {
      // Rows of very different size, as gradients have.
      Matrix<float> x = Matrix<float>::random(T, K, T + K, 1, 3);
      for (Index t = 0; t < T; ++t)
        for (Index k = 0; k < K; ++k) x(t, k) *= std::exp2(static_cast<float>(t % 40) - 30);
      const Fp8Weight w(Matrix<float>::random(N, K, N, 0.02), form);
      on_every_isa([&] {
        const Fp8Rows rows = fp8_rows(x.view(), form);
        const Matrix<float> seen = dequantized(rows.view());
        Matrix<float> y(T, N, 2);
        linear(rows.view(), w.packed, y.view());
        expect_products(y, K, seen, w.values);
        if (form == ScaleForm::Float) {
          Matrix<float> by_definition(T, N);
          reference::linear_fp8(rows.view(), w.view(), by_definition.view());
          expect_products(by_definition, K, seen, w.values);
        } else {  // the same product as of the dequantised rows, to the last bit
          Matrix<float> plain(T, N);
          linear(std::as_const(seen).view(), w.packed, plain.view());
          test::expect_same_bits(y, plain);
        }
      });
    }
}

TEST(LinearFp8, WeightGradientIsAProductOfTheTiledOperands) {
  for (ScaleForm form : kForms)
    for (const auto& [T, N, K] : kExtents) {
      const Fp8Rows dy = fp8_rows(Matrix<float>::random(T, N, 1, 1e-6).view(), form);
      const Fp8Rows x = fp8_rows(Matrix<float>::random(T, K, 2).view(), form);
      const std::vector<Index> offsets{0, T / 3, T / 3, T};
      on_every_isa([&] {
        const Fp8Columns dy_tiles = fp8_columns(dy.view(), offsets, form);
        const Fp8Columns x_tiles = fp8_columns(x.view(), offsets, form);
        std::vector<Matrix<float>> dw(3, Matrix<float>(N, K, 1));
        std::vector<View2<float>> views;
        for (Matrix<float>& m : dw) views.push_back(m.view());
        linear_weight_gradient_grouped(dy_tiles, x_tiles, offsets, views);
        Index tile = 0;
        for (std::size_t e = 0; e < 3; ++e) {
          const Index first = offsets[e], rows = offsets[e + 1] - first;
          const auto value = [&](const Fp8Columns& of, Index column, Index t) {
            const float v = float(of.values.v2<BF16>()(first + t, column));
            return form == ScaleForm::Float
                       ? static_cast<double>(v) * of.scales.v2()(tile + t / 128, column)
                       : static_cast<double>(v);
          };
          expect_products(
              dw[e], rows, [&](Index n, Index t) { return value(dy_tiles, n, t); },
              [&](Index k, Index t) { return value(x_tiles, k, t); });
          tile += block_count(rows, 128);
        }
      });
    }
}

TEST(LinearFp8, SameBitsOnAnyNumberOfThreads) {
  const Index T = 700, N = 300, K = 260;
  for (ScaleForm form : kForms) {
    const Fp8Weight w(Matrix<float>::random(N, K, 1, 0.02), form);
    const Fp8Rows x = fp8_rows(Matrix<float>::random(T, K, 2).view(), form);
    const Fp8Rows dy = fp8_rows(Matrix<float>::random(T, N, 3).view(), form);
    const Index all[] = {0, T};
    std::vector<Matrix<float>> y, dw;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      linear(x.view(), w.packed, y.emplace_back(T, N).view());
      linear_weight_gradient(fp8_columns(dy.view(), all, form), fp8_columns(x.view(), all, form),
                             dw.emplace_back(N, K).view());
      test::expect_same_bits(y.back(), y.front());
      test::expect_same_bits(dw.back(), dw.front());
    }
    set_threads(available_cores());
  }
}

TEST(LinearFp8, TransposedCodesGiveTheInputGradient) {
  for (const auto& [T, N, K] : kExtents) {
    const Fp8Weight w(Matrix<float>::random(K, N, 7, 0.02), ScaleForm::Float);
    const Fp8Rows dy = fp8_rows(Matrix<float>::random(T, K, 8, 1e-5).view(), ScaleForm::Float);
    const Matrix<float> seen = dequantized(dy.view());
    Matrix<float> dx(T, N);
    linear(dy.view(), PackedWeights::pack_transposed(w.view().codes, w.view().scales), dx.view());
    expect_products(dx, K, seen, [&](Index n, Index k) { return w.values(k, n); });
  }
}

TEST(LinearFp8, NotANumberReachesTheResult) {
  for (ScaleForm form : kForms) {
    Matrix<float> x = Matrix<float>::random(20, 140, 4);
    x(3, 5) = std::numeric_limits<float>::infinity();
    x(7, 139) = std::numeric_limits<float>::quiet_NaN();
    const Fp8Weight w(Matrix<float>::random(9, 140, 1, 0.02), form);
    on_every_isa([&] {
      Matrix<float> y(20, 9);
      linear(fp8_rows(x.view(), form).view(), w.packed, y.view());
      for (Index t = 0; t < 20; ++t)
        for (Index n = 0; n < 9; ++n) ASSERT_EQ(std::isnan(y(t, n)), t == 3 || t == 7);
    });
  }
}

TEST(LinearFp8, FullPrecisionWeightsAreRefused) {
  const Fp8Rows x = fp8_rows(Matrix<float>(2, 8).view(), ScaleForm::Float);
  Matrix<float> y(2, 3);
  const PackedWeights w = PackedWeights::pack(Matrix<float>(3, 8).view(), WeightForm::F32);
  EXPECT_THROW(linear(x.view(), w, y.view()), ShapeError);
}

}  // namespace
}  // namespace minke

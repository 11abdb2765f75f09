// Products of rows in BF16 against those of the same rows in FP32, which they round: the same bits.
#include "ops/linear.h"
#include "ops/permute.h"
#include "ops/test_weights.h"

namespace minke {
namespace {

using test::Matrix;
using test::random_weights;

// In rows `gap` further apart than they are long.
Matrix<BF16> narrow(const Matrix<float>& x, Index gap = 0) {
  Matrix<BF16> y(x.rows, x.columns, gap);
  copy(x.view(), y.view());
  return y;
}

struct Extents {
  Index T, N, K;
};
constexpr Extents kExtents[] = {{1, 1, 1},     {2, 3, 2},      {3, 17, 33},   {5, 15, 64},
                                {6, 64, 17},   {7, 65, 130},   {16, 48, 96},  {17, 129, 65},
                                {33, 100, 40}, {200, 31, 520}, {4, 80, 1504}, {19, 70, 1100}};

TEST(LinearBf16, RowsGiveTheBitsOfThoseInFp32) {
  test::on_every_isa([] {
    std::uint64_t seed = 700;
    for (const auto& [T, N, K] : kExtents)
      for (const WeightForm form : {WeightForm::Bf16, WeightForm::E4m3})
        for (const Index gap : {0, 2, 3}) {
          SCOPED_TRACE(testing::Message() << T << " x " << N << " x " << K << " + " << gap);
          const auto x = Matrix<float>::random(T, K, ++seed, 1, 1);
          const PackedWeights w = random_weights(N, K, form, ++seed);
          auto expected = Matrix<float>::random(T, N, ++seed), y = expected;
          linear(x.view(), w, expected.view(), Write::Add);
          const Matrix<BF16> narrow_x = narrow(x, gap);
          linear(narrow_x.view(), w, y.view(), Write::Add);
          test::expect_same_bits(y, expected);
        }
  });
}

TEST(LinearBf16, WeightGradientsHaveTheBitsOfThoseInFp32) {
  test::on_every_isa([] {
    std::uint64_t seed = 900;
    for (const auto& [T, N, K] : kExtents) {
      SCOPED_TRACE(testing::Message() << T << " x " << N << " x " << K);
      const auto x = Matrix<float>::random(T, K, ++seed, 1, 4),
                 dy = Matrix<float>::random(T, N, ++seed);
      const Matrix<BF16> narrow_x = narrow(x, 3), narrow_dy = narrow(dy, 1);
      auto expected = Matrix<float>::random(N, K, ++seed), dw = expected;
      linear_weight_gradient(dy.view(), x.view(), expected.view(), Precision::Bf16);
      linear_weight_gradient(narrow_dy.view(), narrow_x.view(), dw.view());
      test::expect_same_bits(dw, expected);
    }
  });
}

TEST(LinearBf16, RowsMayBeginAnywhere) {
  const auto all = Matrix<float>::random(9, 70, 1);
  const Matrix<BF16> narrow_all = narrow(all);
  const PackedWeights w = random_weights(40, 64, WeightForm::Bf16, 3);
  test::on_every_isa([&] {
    for (const Index first : {0, 1, 2, 3, 6}) {
      Matrix<float> expected(9, 40), y(9, 40);
      linear(all.view().columns(first, 64), w, expected.view());
      linear(narrow_all.view().columns(first, 64), w, y.view());
      test::expect_same_bits(y, expected);
    }
  });
}

TEST(LinearBf16, GroupsGiveTheBitsOfThoseInFp32) {
  const std::vector<Index> offsets{0, 3, 3, 40, 41};
  const auto x = Matrix<float>::random(41, 130, 71), dy = Matrix<float>::random(41, 70, 72);
  const Matrix<BF16> narrow_x = narrow(x), narrow_dy = narrow(dy);
  std::vector<PackedWeights> w;
  for (std::uint64_t e = 0; e < 4; ++e)
    w.push_back(random_weights(70, 130, WeightForm::Bf16, 73 + e));
  std::vector<const PackedWeights*> packs;
  for (const PackedWeights& e : w) packs.push_back(&e);
  test::on_every_isa([&] {
    Matrix<float> expected(41, 70), y(41, 70);
    linear_grouped(x.view(), offsets, packs, expected.view());
    linear_grouped(narrow_x.view(), offsets, packs, y.view());
    test::expect_same_bits(y, expected);
    std::vector<Matrix<float>> expected_dw(4, Matrix<float>(70, 130)), dw = expected_dw;
    std::vector<View2<float>> expected_views, views;
    for (Matrix<float>& m : expected_dw) expected_views.push_back(m.view());
    for (Matrix<float>& m : dw) views.push_back(m.view());
    linear_weight_gradient_grouped(dy.view(), x.view(), offsets, expected_views, Precision::Bf16);
    linear_weight_gradient_grouped(narrow_dy.view(), narrow_x.view(), offsets, views);
    for (std::size_t e = 0; e < dw.size(); ++e) test::expect_same_bits(dw[e], expected_dw[e]);
  });
}

TEST(LinearBf16, WeightsInFp32AreRefused) {
  const PackedWeights w = random_weights(4, 8, WeightForm::F32, 1);
  const Matrix<BF16> x = narrow(Matrix<float>::random(3, 8, 2));
  Matrix<float> y(3, 4);
  EXPECT_THROW(linear(x.view(), w, y.view()), ShapeError);
}

}  // namespace
}  // namespace minke

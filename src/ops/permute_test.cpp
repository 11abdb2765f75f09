#include "ops/permute.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

Matrix<std::int32_t> choices(Index T, Index K, Index E) {
  Matrix<std::int32_t> m(T, K);
  for (Index t = 0; t < T; ++t)
    for (Index k = 0; k < K; ++k) m(t, k) = static_cast<std::int32_t>((t * t + k * 5) % E);
  return m;
}

TEST(Permute, EveryChoiceHasItsRowAndTokensRise) {
  for (const auto& [T, K, E] : {std::array<Index, 3>{0, 2, 3},
                                {1, 1, 1},
                                {1, 3, 16},
                                {40, 3, 16},
                                {9, 2, 200},
                                {33, 1, 1}}) {
    const auto indices = choices(T, K, E);
    const ExpertOrder order = sort_by_expert(indices.view(), E);
    ASSERT_EQ(static_cast<Index>(order.offsets.size()), E + 1);
    EXPECT_EQ(order.offsets.front(), 0);
    EXPECT_EQ(order.offsets.back(), T * K);
    for (Index e = 0; e < E; ++e)
      for (Index r = order.offsets[static_cast<std::size_t>(e)];
           r < order.offsets[static_cast<std::size_t>(e) + 1]; ++r) {
        const auto i = static_cast<std::size_t>(r);
        EXPECT_EQ(indices(order.token[i], order.slot[i]), e);
        EXPECT_EQ(order.row[static_cast<std::size_t>(order.token[i] * K + order.slot[i])], r);
        if (r > order.offsets[static_cast<std::size_t>(e)]) {
          EXPECT_LE(order.token[i - 1], order.token[i]);
        }
      }
  }
}

// Sums of none, one and several rows, with and without weights.
template <class Real>
void check_sums_of_listed_rows() {
  Tensor rows = Tensor::zeros<Real>({4, 19});
  for (Index r = 0; r < 4; ++r)
    for (Index d = 0; d < 19; ++d) rows.v2<Real>()(r, d) = static_cast<Real>((r + 1) * (d + 1));
  RowSums<Real> sums{{0, 2, 2, 3}, {3, 0, 1}, {}};
  for (const bool weighted : {false, true}) {
    if (weighted) sums.weight = {2, 1, -3};
    const Real factor[] = {static_cast<Real>(weighted ? 2 * 4 + 1 : 4 + 1), 0,
                           static_cast<Real>(weighted ? -3 * 2 : 2)};
    Tensor y = Tensor::zeros<Real>({3, 19});
    for (Index t = 0; t < 3; ++t) y.v2<Real>()(t, 0) = 7;
    sum_rows(std::as_const(rows).v2<Real>(), sums, y.v2<Real>());
    for (Index t = 0; t < 3; ++t)
      for (Index d = 0; d < 19; ++d)
        EXPECT_EQ(y.v2<Real>()(t, d), (d == 0 ? 7 : 0) + factor[t] * static_cast<Real>(d + 1));
  }
}

TEST(Permute, ListedRowsAreSummed) {
  for (Isa isa : available_isas()) {
    choose_isa(isa);
    check_sums_of_listed_rows<float>();
    check_sums_of_listed_rows<double>();
  }
  choose_isa(available_isas().back());
}

TEST(Permute, UnknownExpertsAreRefused) {
  const auto indices = choices(4, 2, 8);
  EXPECT_THROW(sort_by_expert(indices.view(), 3), ShapeError);
}

TEST(Permute, EveryFormGathersAndCombines) {
  for (const Index D : {1, 15, 16, 17, 70}) {
    const Index T = 37, K = 3;
    const ExpertOrder order = sort_by_expert(choices(T, K, 7).view(), 7);
    const auto x = Matrix<float>::random(T, D, 1, 1, 2), weights = Matrix<float>::random(T, K, 2);
    const auto dy = Matrix<float>::random(T, D, 3);
    test::on_every_isa([&] {
      Matrix<float> rows(T * K, D, 1), y(T, D), drows(T * K, D), dweights(T, K), dx(T, D);
      gather_tokens(x.view(), order, rows.view());
      y.fill(1), dx.fill(2);
      combine_experts(rows.view(), order, weights.view(), y.view());
      combine_experts_backward(dy.view(), rows.view(), order, weights.view(), drows.view(),
                               dweights.view());
      gather_tokens_backward(drows.view(), order, dx.view());
      Matrix<BF16> narrow_drows(T * K, D, 1);
      Matrix<float> same_dweights(T, K);
      combine_experts_backward(dy.view(), rows.view(), order, weights.view(), narrow_drows.view(),
                               same_dweights.view());
      test::expect_rounded(narrow_drows, drows, "drows");
      test::expect_same_bits(same_dweights, dweights, "dweights");
      for (Index t = 0; t < T; ++t) {
        double weight = 0;
        for (Index k = 0; k < K; ++k) {
          weight += static_cast<double>(weights(t, k));
          const Index r = order.row[static_cast<std::size_t>(t * K + k)];
          double dot = 0;
          for (Index d = 0; d < D; ++d) {
            EXPECT_EQ(rows(r, d), x(t, d));
            EXPECT_EQ(drows(r, d), weights(t, k) * dy(t, d));
            dot += static_cast<double>(dy(t, d)) * static_cast<double>(x(t, d));
          }
          EXPECT_NEAR(static_cast<double>(dweights(t, k)), dot, 2e-5);
        }
        for (Index d = 0; d < D; ++d) {
          EXPECT_NEAR(static_cast<double>(y(t, d)), 1 + weight * static_cast<double>(x(t, d)),
                      5e-6);
          EXPECT_NEAR(static_cast<double>(dx(t, d)), 2 + weight * static_cast<double>(dy(t, d)),
                      5e-6);
        }
      }
    });
  }
}

// combine is bilinear in rows and weights, so <dy, combine(rows + h, weights + g)> must agree with
// the gradients for steps of any size; in FP32 that is a test to rounding.
TEST(Permute, GradientsOfCombineAreItsDerivatives) {
  const Index T = 6, K = 2, D = 5;
  const ExpertOrder order = sort_by_expert(choices(T, K, 4).view(), 4);
  auto rows = Matrix<float>::random(T * K, D, 1), weights = Matrix<float>::random(T, K, 2);
  const auto dy = Matrix<float>::random(T, D, 3);
  Matrix<float> drows(T * K, D), dweights(T, K);
  combine_experts_backward(dy.view(), rows.view(), order, weights.view(), drows.view(),
                           dweights.view());
  const auto loss = [&] {
    Matrix<float> y(T, D);
    combine_experts(rows.view(), order, weights.view(), y.view());
    return test::weighted_sum(y.as<double>(), dy.as<double>());
  };
  const auto expect_derivative = [&](Matrix<float>& of, const Matrix<float>& gradient) {
    for (std::size_t i = 0; i < of.data.size(); ++i) {
      const float kept = of.data[i];
      of.data[i] = kept + 1;
      const double above = loss();
      of.data[i] = kept - 1;
      const double below = loss();
      of.data[i] = kept;
      EXPECT_NEAR((above - below) / 2, static_cast<double>(gradient.data[i]), 1e-5);
    }
  };
  expect_derivative(rows, drows);
  expect_derivative(weights, dweights);
}

TEST(Permute, EveryFormAgreesWithTheDefinitions) {
  const Index T = 9, K = 3, D = 17;
  const ExpertOrder order = sort_by_expert(choices(T, K, 5).view(), 5);
  const auto rows = Matrix<double>::random(T * K, D, 1), weights = Matrix<double>::random(T, K, 2);
  const auto dy = Matrix<double>::random(T, D, 3), start = Matrix<double>::random(T, D, 4);
  auto y = start, dx = start;
  Matrix<double> drows(T * K, D), dweights(T, K);
  combine_experts(rows.view(), order, weights.view(), y.view());
  combine_experts_backward(dy.view(), rows.view(), order, weights.view(), drows.view(),
                           dweights.view());
  gather_tokens_backward(rows.view(), order, dx.view());
  test::on_every_isa([&] {
    const auto frows = rows.as<float>(), fweights = weights.as<float>(), fdy = dy.as<float>();
    auto fy = start.as<float>(), fdx = fy;
    Matrix<float> fdrows(T * K, D), fdweights(T, K);
    combine_experts(frows.view(), order, fweights.view(), fy.view());
    combine_experts_backward(fdy.view(), frows.view(), order, fweights.view(), fdrows.view(),
                             fdweights.view());
    gather_tokens_backward(frows.view(), order, fdx.view());
    // Sums of at most 17 products of unit size, each rounded to 6e-8 of sums up to about 10.
    test::expect_near(fy, y, 1e-5, 0, "y");
    test::expect_near(fdrows, drows, 1e-5, 0, "drows");
    test::expect_near(fdweights, dweights, 1e-5, 0, "dweights");
    test::expect_near(fdx, dx, 1e-5, 0, "dx");
  });
}

// combine is bilinear, so central differences are exact but for rounding.
TEST(PermuteReference, GradientsAgreeWithCentralDifferences) {
  const Index T = 5, K = 2, D = 4;
  const ExpertOrder order = sort_by_expert(choices(T, K, 3).view(), 3);
  auto rows = Matrix<double>::random(T * K, D, 1), weights = Matrix<double>::random(T, K, 2);
  auto x = Matrix<double>::random(T, D, 4);
  const auto dy = Matrix<double>::random(T, D, 3),
             drow_weights = Matrix<double>::random(T * K, D, 5);
  Matrix<double> drows(T * K, D), dweights(T, K), dx(T, D);
  reference::combine_experts_backward<double>(dy.view(), rows.view(), order, weights.view(),
                                              drows.view(), dweights.view());
  const auto combined = [&] {
    Matrix<double> y(T, D);
    reference::combine_experts<double>(rows.view(), order, weights.view(), y.view());
    return test::weighted_sum(y, dy);
  };
  test::expect_gradient(rows.data, drows.data, combined);
  test::expect_gradient(weights.data, dweights.data, combined);
  reference::gather_tokens_backward<double>(drow_weights.view(), order, dx.view());
  test::expect_gradient(x.data, dx.data, [&] {
    Matrix<double> gathered(T * K, D);
    gather_tokens(x.view(), order, gathered.view());
    return test::weighted_sum(gathered, drow_weights);
  });
}

TEST(Permute, CombiningGivesTheSameBitsOnAnyThreads) {
  const Index T = 150, K = 4, D = 33;
  const ExpertOrder order = sort_by_expert(choices(T, K, 9).view(), 9);
  const auto rows = Matrix<float>::random(T * K, D, 1), weights = Matrix<float>::random(T, K, 2);
  Matrix<float> first(T, D);
  set_threads(1);
  combine_experts(rows.view(), order, weights.view(), first.view());
  for (const int threads : {2, 3}) {
    set_threads(threads);
    Matrix<float> y(T, D);
    combine_experts(rows.view(), order, weights.view(), y.view());
    test::expect_same_bits(y, first);
  }
  set_threads(available_cores());
}

TEST(Permute, AddsCopiesAndFillsStridedRows) {
  const auto a = Matrix<float>::random(5, 19, 1, 1, 3), b = Matrix<float>::random(5, 19, 2);
  Matrix<float> y(5, 19, 2), z(5, 19);
  add(a.view(), b.view(), y.view());
  copy(View2<const float>(b.view()), z.view());
  add_to(a.view(), z.view());
  test::expect_same_bits(y, z);
  for (Index r = 0; r < 5; ++r)
    for (Index c = 0; c < 19; ++c) EXPECT_EQ(y(r, c), a(r, c) + b(r, c));
  fill(y.view(), 3);
  EXPECT_EQ(y(4, 18), 3);
  EXPECT_TRUE(std::isnan(y.data[19]));  // the gap between rows is not touched
}

TEST(Permute, NarrowingRoundsAsBf16DoesInEveryForm) {
  std::vector<float> values = test::random_values(33, 1);
  const std::uint32_t special[] = {0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000,
                                   0x7FFFFFFF, 0xFF800001, 0x00000001, 0x80000000, 0x7F800001};
  for (std::uint32_t bits : special) values.push_back(std::bit_cast<float>(bits));
  const Index n = static_cast<Index>(values.size());
  test::on_every_isa([&] {
    std::vector<BF16> narrow(values.size());
    copy(View2<const float>(values.data(), {1, n}), View2<BF16>(narrow.data(), {1, n}));
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_EQ(narrow[i].bits, BF16(values[i]).bits) << std::bit_cast<std::uint32_t>(values[i]);
  });
}

}  // namespace
}  // namespace minke

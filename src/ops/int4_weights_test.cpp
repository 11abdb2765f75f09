#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "ops/linear.h"
#include "ops/test_values.h"
#include "tensor/int4_groups.h"

namespace minke {
namespace {

using test::Matrix;

struct Weights {
  Int4Matrix codes;
  PackedWeights packed;
  Matrix<float> values;  // dequantised

  Weights(Index n, Index k, Index group, unsigned seed)
      : codes(quantize_int4(Matrix<float>::random(n, k, seed).view(), group)), values(n, k) {
    const auto packed_codes = std::as_const(codes.packed).view<std::int32_t, 2>();
    const auto scales = std::as_const(codes.scales).view<BF16, 2>();
    packed = PackedWeights::pack_int4(packed_codes, scales, k, group);
    dequantize_int4(packed_codes, scales, group, values.view());
  }
};

Matrix<float> product(const Matrix<float>& x, const PackedWeights& w, const Matrix<float>* before) {
  Matrix<float> y(x.rows, w.n(), 3);
  if (before) y = *before;
  linear(x.view(), w, y.view(), before ? Write::Add : Write::Overwrite);
  return y;
}

void expect_same_bits(const Matrix<float>& a, const Matrix<float>& b) {
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.columns; ++c)
      ASSERT_EQ(std::bit_cast<std::uint32_t>(a(r, c)), std::bit_cast<std::uint32_t>(b(r, c)))
          << "row " << r << " column " << c << " of " << a.columns;
}

template <class Body>
void for_each_isa(Body body) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name_of(isa));
    choose_isa(isa);
    body();
  }
  choose_isa(available_isas().back());
}

// x is rounded to max |x| / 254 of its group at most, each product by its weight.
TEST(Int4Weights, ProductsAreThoseOfTheValues) {
  const Matrix<float> x = Matrix<float>::random(5, 300, 1, 1, 7);
  for (const Index group : {32, 128}) {
    const Weights w(70, 300, group, 2);
    const Matrix<float> y = product(x, w.packed, nullptr);
    for (Index t = 0; t < x.rows; ++t)
      for (Index n = 0; n < w.values.rows; ++n) {
        double sum = 0, allowed = 1e-5;
        for (Index k = 0; k < 300; ++k) {
          sum += double{x(t, k)} * w.values(n, k);
          float largest = 0;
          for (Index i = k / group * group; i < std::min<Index>(300, (k / group + 1) * group); ++i)
            largest = std::max(largest, std::fabs(x(t, i)));
          allowed += std::fabs(w.values(n, k)) * largest / 253.0;
        }
        EXPECT_NEAR(y(t, n), sum, allowed);
      }
  }
}

TEST(Int4Weights, EveryFormGivesTheSameBits) {
  for (const Index group : {32, 128})
    for (const auto [t, n, k] : {std::array<Index, 3>{1, 16, 32},
                                 {2, 1, 1},
                                 {3, 17, 40},
                                 {4, 64, 128},
                                 {5, 65, 129},
                                 {7, 100, 257},
                                 {13, 33, 515}}) {
      const Weights w(n, k, group, 3);
      Matrix<float> x = Matrix<float>::random(t, k, 4);
      x(0, k - 1) = 1e30f;
      const Matrix<float> before = Matrix<float>::random(t, n, 5, 1, 2);
      choose_isa(Isa::Scalar);
      const Matrix<float> fresh = product(x, w.packed, nullptr);
      const Matrix<float> added = product(x, w.packed, &before);
      for_each_isa([&] {
        expect_same_bits(product(x, w.packed, nullptr), fresh);
        expect_same_bits(product(x, w.packed, &before), added);
      });
    }
}

TEST(Int4Weights, RowsDoNotDependOnOthersOrThreads) {
  const Weights w(200, 320, 32, 6);
  const Matrix<float> x = Matrix<float>::random(300, 320, 7);
  for_each_isa([&] {
    const Matrix<float> all = product(x, w.packed, nullptr);
    set_threads(1);
    expect_same_bits(product(x, w.packed, nullptr), all);
    set_threads(2);
    for (const Index row : {0, 1, 2, 3, 255, 299}) {
      Matrix<float> one(1, 200);
      linear(x.view().rows(row, 1), w.packed, one.view());
      for (Index c = 0; c < 200; ++c) ASSERT_EQ(one(0, c), all(row, c));
    }
  });
  set_threads(available_cores());
}

TEST(Int4Weights, GroupedIsEachExpertAlone) {
  std::vector<Weights> w;
  for (unsigned e = 0; e < 3; ++e) w.emplace_back(48, 96, 32, 8 + e);
  const Matrix<float> x = Matrix<float>::random(9, 96, 12);
  const std::vector<Index> offsets{0, 4, 4, 9};
  const std::vector<const PackedWeights*> experts{&w[0].packed, &w[1].packed, &w[2].packed};
  Matrix<float> y(9, 48), alone(9, 48);
  linear_grouped(x.view(), offsets, experts, y.view());
  linear(x.view().rows(0, 4), w[0].packed, alone.view().rows(0, 4));
  linear(x.view().rows(4, 5), w[2].packed, alone.view().rows(4, 5));
  expect_same_bits(y, alone);
}

TEST(Int4Weights, NumbersThatAreNotFiniteShow) {
  const Weights w(16, 64, 32, 13);
  for_each_isa([&] {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      Matrix<float> x = Matrix<float>::random(2, 64, 14);
      x(1, 40) = bad;
      const Matrix<float> y = product(x, w.packed, nullptr);
      for (Index c = 0; c < 16; ++c) {
        EXPECT_TRUE(std::isfinite(y(0, c)));
        EXPECT_TRUE(std::isnan(y(1, c)));
      }
    }
    Matrix<float> tiny(1, 64);
    for (Index k = 0; k < 64; ++k) tiny(0, k) = 1e-39f;
    EXPECT_EQ(product(tiny, w.packed, nullptr)(0, 0), 0.0f);
  });
}

}  // namespace
}  // namespace minke

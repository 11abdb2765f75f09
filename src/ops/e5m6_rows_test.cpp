#include "ops/e5m6_rows.h"

#include <algorithm>
#include <cmath>

#include "ops/test_values.h"
#include "tensor/e5m6.h"

namespace minke {
namespace {

using test::Matrix;

// Every tile: the smallest power of two whose 129024-fold holds the maximum, and E5M6 of the rest.
TEST(E5m6Rows, AreTheDefinitionOnEveryInstructionSet) {
  for (Index K : {1, 2, 127, 128, 131, 300}) {
    Matrix<float> x = Matrix<float>::random(40, K, 3, 1, 2);
    for (Index t = 0; t < 40; ++t)
      for (Index k = 0; k < K; ++k) x(t, k) *= std::pow(10.0f, static_cast<float>(t - 25));
    x(5, 0) = std::numeric_limits<float>::quiet_NaN();
    x(6, 0) = std::numeric_limits<float>::infinity();
    for (Index k = 0; k < K; ++k) x(7, k) = 0;
    test::on_every_isa([&] {
      const E5m6Rows rows = e5m6_rows(x.view());
      Matrix<float> y(40, K, 1);
      dequantize(rows, y.view());
      for (Index t = 0; t < 40; ++t)
        for (Index k = 0; k < K; ++k) {
          float amax = 0;
          const Index first = k / 128 * 128;
          for (Index j = first; j < std::min(K, first + 128); ++j)
            amax = std::fmax(amax, std::fabs(x(t, j)));
          const float exact = std::clamp(amax / 129024, 0x1p-117f, 0x1p119f);
          const float scale = std::exp2(std::ceil(std::log2(exact)));
          ASSERT_EQ(float(rows.scales.view<UE8M0, 2>()(t, k / 128)), scale);
          if (!std::isfinite(x(t, k)))
            ASSERT_TRUE(std::isnan(y(t, k)));
          else
            ASSERT_EQ(y(t, k), float(E5M6(x(t, k) / scale)) * scale) << x(t, k);
        }
    });
  }
}

TEST(E5m6Rows, TakeTwelveBitsAValue) {
  const E5m6Rows rows = e5m6_rows(Matrix<float>(10, 512).view());
  EXPECT_EQ(rows.bytes(), 10u * (768 + 4));
  Matrix<float> wrong(10, 511);
  EXPECT_THROW(dequantize(rows, wrong.view()), ShapeError);
}

}  // namespace
}  // namespace minke

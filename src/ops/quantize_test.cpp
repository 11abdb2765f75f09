#include "ops/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ops/isa.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

TEST(QuantizeRows, EveryInstructionSetGivesTheDefinitionsCodesAndScales) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  for (Index K : {1, 7, 16, 127, 128, 129, 300, 512}) {
    const Index T = 300, tiles = block_count(K, 128);
    std::vector<float> x(T * K);
    for (Index t = 0; t < T; ++t)
      for (Index k = 0; k < K; ++k)
        x[t * K + k] = normal(generator) * std::pow(10.0f, static_cast<float>(t % 60) - 40);
    x[0] = std::nanf("");
    x[K] = INFINITY;
    x[2 * K] = -0.0f;
    const View2<const float> in(x.data(), {T, K});
    std::vector<E4M3> expected(T * K), codes(T * K);
    std::vector<float> expected_scales(T * tiles), scales(T * tiles);
    quantize_blocks(in, kActivationBlock, ScaleForm::Float, View2<E4M3>(expected.data(), {T, K}),
                    View2<float>(expected_scales.data(), {T, tiles}));
    for (Isa isa : available_isas()) {
      choose_isa(isa);
      quantize_rows(in, View2<E4M3>(codes.data(), {T, K}), View2<float>(scales.data(), {T, tiles}));
      EXPECT_EQ(std::memcmp(scales.data(), expected_scales.data(), scales.size() * 4), 0);
      for (Index i = 0; i < T * K; ++i)
        ASSERT_EQ(codes[i].code, expected[i].code)
            << name_of(isa) << " " << x[i] << " at " << i << " of " << K;
    }
    choose_isa(available_isas().back());
  }
}

TEST(QuantizeRows, ExtentsThatDisagreeAreRefused) {
  std::vector<float> x(300), scales(9);
  std::vector<E4M3> codes(300);
  EXPECT_THROW(
      quantize_rows(View2<const float>(x.data(), {2, 150}), View2<E4M3>(codes.data(), {2, 150}),
                    View2<float>(scales.data(), {2, 1})),
      ShapeError);
}

}  // namespace
}  // namespace minke

#include "ops/rope.h"

#include "golden_reader.h"
#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

View3<float> heads_of(Matrix<float>& x, Index heads, Index width) {
  return View3<float>(x.data.data(), {x.rows, heads, width}, {x.stride, x.columns / heads, 1});
}

TEST(Rope, EveryFormAgreesWithTheDefinitionAndTurnsBack) {
  for (const Index width : {2, 8, 14, 16, 32, 34, 64}) {
    SCOPED_TRACE(testing::Message() << "R " << width);
    const Index T = 5, H = 3, gap = 5;  // the rope part is the beginning of a head here
    const auto x = Matrix<float>::random(T, H * (width + gap), 1);
    const std::vector<Index> positions{0, 1, 7, 1000, 163839};
    const auto freq = rope_inverse_frequencies(width, 10000, std::nullopt);
    Matrix<float> cos(T, width / 2), sin(T, width / 2);
    rope_angles(positions, freq, 1, cos.view(), sin.view());
    auto expected = x.as<double>();
    const auto wcos = cos.as<double>(), wsin = sin.as<double>();
    reference::rope_apply<double>(
        View3<double>(expected.data.data(), {T, H, width}, {expected.stride, width + gap, 1}),
        wcos.view(), wsin.view(), Turn::Forward);
    test::on_every_isa([&] {
      Matrix<float> y = x;
      rope_apply(heads_of(y, H, width), cos.view(), sin.view());
      test::expect_near(y, expected, 1e-6);
      rope_apply(heads_of(y, H, width), cos.view(), sin.view(), Turn::Backward);
      test::expect_near(y, x, 2e-6);
    });
  }
}

TEST(Rope, PairsAreInterleaved) {
  Matrix<float> x(1, 4), cos(1, 2), sin(1, 2);
  for (Index i = 0; i < 4; ++i) x(0, i) = static_cast<float>(i + 1);
  cos(0, 0) = 0, sin(0, 0) = 1, cos(0, 1) = 1, sin(0, 1) = 0;
  rope_apply(heads_of(x, 1, 4), cos.view(), sin.view());
  EXPECT_EQ(x.data, (std::vector<float>{-2, 1, 3, 4}));
}

TEST(Rope, GradientAgreesWithCentralDifferences) {
  const Index T = 2, R = 6;
  auto x = Matrix<double>::random(T, R, 1);
  const auto dy = Matrix<double>::random(T, R, 2);
  const auto angle = Matrix<double>::random(T, R / 2, 3);
  Matrix<double> cos(T, R / 2), sin(T, R / 2);
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < R / 2; ++i)
      cos(t, i) = std::cos(angle(t, i)), sin(t, i) = std::sin(angle(t, i));
  const auto turned = [&](Matrix<double> m, Turn turn) {
    reference::rope_apply<double>(View3<double>(m.data.data(), {T, 1, R}), cos.view(), sin.view(),
                                  turn);
    return m;
  };
  const auto dx = turned(dy, Turn::Backward);
  test::expect_gradient(x.data, dx.data,
                        [&] { return test::weighted_sum(turned(x, Turn::Forward), dy); });
}

struct Published {
  const char* name;
  YarnScaling yarn;
};
const Published kPublished[] = {{"v3", {}}, {"v2lite", {40, 32, 1, 0.707, 0.707, 4096}}};

TEST(Rope, FrequenciesInDoubleAreNotWidenedOnes) {
  const auto wide = rope_inverse_frequencies<double>(16, 10000, YarnScaling{});
  const auto narrow = rope_inverse_frequencies(16, 10000, YarnScaling{});
  bool differ = false;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    EXPECT_EQ(static_cast<float>(wide[i]), narrow[i]);
    differ = differ || wide[i] != static_cast<double>(narrow[i]);
  }
  EXPECT_TRUE(differ);
}

TEST(RopeGolden, FrequenciesAndAnglesOfThePublishedSettings) {
  const test::GoldenFile golden("tiny-yarn/expected.safetensors");
  const auto positions = golden.numbers<Index>("rope.positions");
  for (const auto& [name, yarn] : kPublished) {
    const std::string prefix = std::string("rope.") + name;
    const auto freq = rope_inverse_frequencies(64, 10000, yarn);
    const auto expected = golden.numbers(prefix + ".inv_freq");
    ASSERT_EQ(freq.size(), expected.size());
    for (std::size_t i = 0; i < freq.size(); ++i)
      EXPECT_NEAR(static_cast<double>(freq[i]), expected[i], 1e-7) << prefix << " " << i;
    const Index T = static_cast<Index>(positions.size());
    Matrix<float> cos(T, 32), sin(T, 32);
    rope_angles(positions, freq, rotation_mscale(yarn), cos.view(), sin.view());
    // The golden angles were formed in FP32: up to 5e-4 at position 8191, and no more than the
    // rounding of the angle elsewhere.
    const auto golden_cos = golden.numbers(prefix + ".cos");
    const auto golden_sin = golden.numbers(prefix + ".sin");
    for (std::size_t i = 0; i < golden_cos.size(); ++i) {
      const auto t = static_cast<Index>(i / 32), d = static_cast<Index>(i % 32);
      const double angle =
          static_cast<double>(positions[i / 32]) * static_cast<double>(freq[i % 32]);
      EXPECT_NEAR(static_cast<double>(cos(t, d)), golden_cos[i], 1e-6 + 1.2e-7 * angle);
      EXPECT_NEAR(static_cast<double>(sin(t, d)), golden_sin[i], 1e-6 + 1.2e-7 * angle);
      EXPECT_NEAR(static_cast<double>(cos(t, d)), std::cos(angle), 1e-7);
      EXPECT_NEAR(static_cast<double>(sin(t, d)), std::sin(angle), 1e-7);
    }
  }
}

TEST(RopeGolden, ScalesOfThePublishedSettings) {
  const auto json = test::golden_json("tiny-yarn/expected.json");
  for (const auto& [name, yarn] : kPublished) {
    const double mscale = softmax_mscale(yarn);
    EXPECT_NEAR(mscale, json.at(std::string(name) + "_mscale").get<double>(), 1e-12);
    EXPECT_NEAR(mscale * mscale / std::sqrt(192.0),
                json.at(std::string(name) + "_softmax_scale").get<double>(), 1e-12);
    EXPECT_EQ(rotation_mscale(yarn), 1);
  }
  EXPECT_EQ(softmax_mscale(std::nullopt), 1);
  EXPECT_EQ(softmax_mscale(YarnScaling{.factor = 1}), 1);
}

TEST(RopeGolden, FrequenciesOfTheSmallModel) {
  const test::GoldenFile golden("tiny-yarn/expected.safetensors");
  const auto expected = golden.numbers("rope.inv_freq");
  const auto freq = rope_inverse_frequencies(16, 10000, YarnScaling{.original_length = 64});
  ASSERT_EQ(freq.size(), expected.size());
  for (std::size_t i = 0; i < freq.size(); ++i)
    EXPECT_NEAR(static_cast<double>(freq[i]), expected[i], 1e-7);
}

}  // namespace
}  // namespace minke

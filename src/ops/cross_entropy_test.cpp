#include "ops/cross_entropy.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

TEST(CrossEntropy, EveryFormAgreesWithTheDefinition) {
  for (const Index V : {1, 2, 15, 16, 17, 63, 64, 65, 1000}) {
    SCOPED_TRACE(testing::Message() << "V " << V);
    const Index T = 11;
    const auto z = Matrix<float>::random(T, V, 1, 4);
    std::vector<std::int32_t> targets;
    for (Index t = 0; t < T; ++t)
      targets.push_back(t == 4 ? kNoTarget : static_cast<std::int32_t>(t * 31 % V));
    auto dz = z.as<double>();
    Matrix<double> nll(1, T);
    reference::cross_entropy_forward_backward<double>(dz.view(), targets, 0.25, nll.flat());
    test::on_every_isa([&] {
      Matrix<float> forward(1, T), both(1, T), fdz = z;
      cross_entropy_forward(z.view(), targets, forward.flat());
      cross_entropy_forward_backward(fdz.view(), targets, 0.25f, both.flat());
      test::expect_near(forward, nll, 4e-6, 1e-6, "nll");
      test::expect_same_bits(both, forward, "nll of both");
      test::expect_near(fdz, dz, 1e-7, 4e-6, "dz");
      EXPECT_EQ(forward(0, 4), 0);
      EXPECT_EQ(fdz(4, 0), 0);
    });
  }
}

TEST(CrossEntropy, LogitsMayBeLarge) {
  test::on_every_isa([] {
    Matrix<float> z(1, 40), nll(1, 1);
    z.fill(-3e38f);
    z(0, 7) = 3e38f;
    cross_entropy_forward_backward(z.view(), std::vector<std::int32_t>{7}, 1, nll.flat());
    EXPECT_EQ(nll(0, 0), 0);
    EXPECT_EQ(z(0, 7), 0);
    EXPECT_EQ(z(0, 39), 0);
  });
}

TEST(CrossEntropy, GradientAgreesWithCentralDifferences) {
  auto z = Matrix<double>::random(3, 6, 1, 2);
  const std::vector<std::int32_t> targets{5, kNoTarget, 0};
  Matrix<double> dz = z, nll(1, 3);
  reference::cross_entropy_forward_backward<double>(dz.view(), targets, 0.5, nll.flat());
  test::expect_gradient(z.data, dz.data, [&] {
    Matrix<double> copy = z;
    reference::cross_entropy_forward_backward<double>(copy.view(), targets, 1, nll.flat());
    return 0.5 * (nll(0, 0) + nll(0, 1) + nll(0, 2));
  });
}

TEST(CrossEntropy, TargetsOutsideTheVocabularyAreRefused) {
  Matrix<float> z(1, 4), nll(1, 1);
  for (const std::int32_t target : {-2, 4})
    EXPECT_THROW(
        cross_entropy_forward(View2<const float>(z.view()), std::vector{target}, nll.flat()),
        ShapeError);
}

}  // namespace
}  // namespace minke

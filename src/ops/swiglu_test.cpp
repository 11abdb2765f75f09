#include "ops/swiglu.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

TEST(Swiglu, EveryFormAgreesWithTheDefinition) {
  for (const Index F : {1, 7, 15, 16, 17, 31, 64, 100})
    for (const Index T : {0, 1, 19}) {
      SCOPED_TRACE(testing::Message() << "T " << T << " F " << F);
      const auto gate = Matrix<float>::random(T, F, 1, 5), up = Matrix<float>::random(T, F, 2);
      const auto dy = Matrix<float>::random(T, F, 3, 1, 2);
      Matrix<double> y(T, F), dgate(T, F), dup(T, F);
      const auto wgate = gate.as<double>(), wup = up.as<double>(), wdy = dy.as<double>();
      reference::swiglu_forward<double>(wgate.view(), wup.view(), y.view());
      reference::swiglu_backward_input<double>(wdy.view(), wgate.view(), wup.view(), dgate.view(),
                                               dup.view());
      test::on_every_isa([&] {
        Matrix<float> fy(T, F, 3), fdgate(T, F), fdup(T, F);
        swiglu_forward(gate.view(), up.view(), fy.view());
        swiglu_backward_input(dy.view(), gate.view(), up.view(), fdgate.view(), fdup.view());
        test::expect_near(fy, y, 1e-12, 1e-6, "y");
        test::expect_near(fdgate, dgate, 1e-6, 1e-6, "dgate");
        test::expect_near(fdup, dup, 1e-12, 1e-6, "dup");
        Matrix<BF16> ny(T, F, 3);
        swiglu_forward(gate.view(), up.view(), ny.view());
        test::expect_rounded(ny, fy, "y");
      });
    }
}

TEST(Swiglu, LargeInputsSaturateAndInPlaceIsAllowed) {
  test::on_every_isa([] {
    Matrix<float> gate(1, 4), up(1, 4);
    up.fill(1);
    const float values[] = {-1000, -90, 90, 3e38f};
    for (Index i = 0; i < 4; ++i) gate(0, i) = values[i];
    swiglu_forward(gate.view(), up.view(), gate.view());
    EXPECT_EQ(gate(0, 0), 0);
    EXPECT_NEAR(gate(0, 1), 0, 1e-35);
    EXPECT_EQ(gate(0, 2), 90);
    EXPECT_EQ(gate(0, 3), 3e38f);
  });
}

TEST(Swiglu, GradientsAgreeWithCentralDifferences) {
  auto gate = Matrix<double>::random(2, 5, 1, 2), up = Matrix<double>::random(2, 5, 2);
  const auto dy = Matrix<double>::random(2, 5, 3);
  Matrix<double> y(2, 5), dgate(2, 5), dup(2, 5);
  const auto loss = [&] {
    reference::swiglu_forward<double>(gate.view(), up.view(), y.view());
    return test::weighted_sum(y, dy);
  };
  reference::swiglu_backward_input<double>(dy.view(), gate.view(), up.view(), dgate.view(),
                                           dup.view());
  test::expect_gradient(gate.data, dgate.data, loss);
  test::expect_gradient(up.data, dup.data, loss);
}

}  // namespace
}  // namespace minke

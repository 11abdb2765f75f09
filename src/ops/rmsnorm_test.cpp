#include "ops/rmsnorm.h"

#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

TEST(Rmsnorm, EveryFormAgreesWithTheDefinition) {
  for (const Index D : {1, 2, 15, 16, 17, 63, 64, 65, 130, 512})
    for (const Index T : {0, 1, 3, 70}) {
      SCOPED_TRACE(testing::Message() << "T " << T << " D " << D);
      const auto x = Matrix<float>::random(T, D, 1, 1, 3), dy = Matrix<float>::random(T, D, 2);
      const auto gain = Matrix<float>::random(1, D, 3);
      Matrix<double> y(T, D), rstd(1, T), dx(T, D), dgain(1, D);
      const auto wx = x.as<double>(), wdy = dy.as<double>(), wgain = gain.as<double>();
      reference::rmsnorm_forward<double>(wx.view(), wgain.flat(), 1e-6, y.view(), rstd.flat());
      reference::rmsnorm_backward_input<double>(wdy.view(), wx.view(), wgain.flat(), rstd.flat(),
                                                dx.view());
      reference::rmsnorm_backward_weight<double>(wdy.view(), wx.view(), rstd.flat(), dgain.flat());
      test::on_every_isa([&] {
        Matrix<float> fy(T, D, 1), frstd(1, T), fdx(T, D), fdgain(1, D);
        rmsnorm_forward(x.view(), gain.flat(), 1e-6f, fy.view(), frstd.flat());
        rmsnorm_backward_input(dy.view(), x.view(), gain.flat(), frstd.flat(), fdx.view());
        rmsnorm_backward_weight(dy.view(), x.view(), frstd.flat(), fdgain.flat());
        // With D = 1 the gradient is a difference of equal terms of size gain dy rstd, 1e2 here.
        test::expect_near(fy, y, 1e-6, 2e-6, "y");
        test::expect_near(frstd, rstd, 0, 2e-6, "rstd");
        Matrix<BF16> ny(T, D, 2);
        Matrix<float> nrstd(1, T);
        rmsnorm_forward(x.view(), gain.flat(), 1e-6f, ny.view(), nrstd.flat());
        test::expect_rounded(ny, fy, "y");
        test::expect_same_bits(nrstd, frstd, "rstd");
        test::expect_near(fdx, dx, D == 1 ? 1e-3 : 1e-5, 1e-5, "dx");
        test::expect_near(fdgain, dgain, 2e-5, 2e-6, "dgain");
      });
    }
}

TEST(Rmsnorm, BackwardWeightAdds) {
  Matrix<float> x(1, 2), rstd(1, 1), dgain(1, 2);
  x.fill(2), rstd.fill(0.5f), dgain.fill(10);
  rmsnorm_backward_weight(x.view(), x.view(), rstd.flat(), dgain.flat());
  EXPECT_EQ(dgain(0, 1), 12);
}

TEST(Rmsnorm, InPlaceAndWithoutRstd) {
  const auto x = Matrix<float>::random(5, 33, 1), gain = Matrix<float>::random(1, 33, 2);
  Matrix<float> y(5, 33), in_place = x;
  rmsnorm_forward(x.view(), gain.flat(), 1e-6f, y.view());
  rmsnorm_forward(in_place.view(), gain.flat(), 1e-6f, in_place.view());
  test::expect_same_bits(in_place, y);
}

TEST(Rmsnorm, GradientsAgreeWithCentralDifferences) {
  auto x = Matrix<double>::random(3, 5, 1), gain = Matrix<double>::random(1, 5, 2);
  const auto dy = Matrix<double>::random(3, 5, 3);
  Matrix<double> y(3, 5), rstd(1, 3), dx(3, 5), dgain(1, 5);
  const auto loss = [&] {
    reference::rmsnorm_forward<double>(x.view(), gain.flat(), 1e-6, y.view(), rstd.flat());
    return test::weighted_sum(y, dy);
  };
  loss();
  reference::rmsnorm_backward_input<double>(dy.view(), x.view(), gain.flat(), rstd.flat(),
                                            dx.view());
  reference::rmsnorm_backward_weight<double>(dy.view(), x.view(), rstd.flat(), dgain.flat());
  test::expect_gradient(x.data, dx.data, loss);
  test::expect_gradient(gain.data, dgain.data, loss);
}

TEST(Rmsnorm, ExtentsThatDoNotAgreeAreRefused) {
  Matrix<float> x(2, 4), y(2, 4), gain(1, 3);
  EXPECT_THROW(rmsnorm_forward(x.view(), gain.flat(), 1e-6f, y.view()), ShapeError);
}

}  // namespace
}  // namespace minke

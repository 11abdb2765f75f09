#include "train/balance.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/tensor.h"

namespace minke {
namespace {

TEST(Balance, MovesAgainstTheLoadAndKeepsTheMean) {
  const std::vector<std::int64_t> load{3, 5, 4, 4};  // mean 4
  Tensor bias = Tensor::zeros({4});
  bias.v1()(2) = -2.0f;
  update_bias(0.001, load, bias.v1());
  EXPECT_EQ(bias.v1()(0), 0.001f);
  EXPECT_EQ(bias.v1()(1), -0.001f);
  EXPECT_EQ(bias.v1()(2), -2.0f);
  EXPECT_EQ(bias.v1()(3), 0.0f);
}

TEST(Balance, MeanThatIsNoInteger) {
  const std::vector<std::int64_t> load{3, 4, 4};  // mean 11/3
  Tensor bias = Tensor::zeros({3});
  update_bias(0.5, load, bias.v1());
  EXPECT_EQ(bias.v1()(0), 0.5f);
  EXPECT_EQ(bias.v1()(1), -0.5f);
  EXPECT_EQ(bias.v1()(2), -0.5f);
}

// One selection of 2^53 decides: a comparison in floating point would call it equal.
TEST(Balance, LoadsBeyondThePrecisionOfADouble) {
  const std::int64_t big = std::int64_t{1} << 53;
  const std::vector<std::int64_t> load{big, big + 2, big + 1};
  Tensor bias = Tensor::zeros({3});
  update_bias(0.25, load, bias.v1());
  EXPECT_EQ(bias.v1()(0), 0.25f);
  EXPECT_EQ(bias.v1()(1), -0.25f);
  EXPECT_EQ(bias.v1()(2), 0.0f);
}

TEST(Balance, OneExpertTakesAll) {
  const std::vector<std::int64_t> load{0, 8, 0, 0};
  Tensor bias = Tensor::zeros({4});
  update_bias(0.001, load, bias.v1());
  EXPECT_EQ(bias.v1()(1), -0.001f);
  EXPECT_EQ(bias.v1()(3), 0.001f);
  EXPECT_EQ(worst_load_ratio(load), 4.0);
  EXPECT_EQ(worst_load_ratio(std::vector<std::int64_t>{2, 2}), 1.0);
  EXPECT_EQ(worst_load_ratio(std::vector<std::int64_t>{0, 0}), 0.0);
}

TEST(Balance, ExtentsMustAgree) {
  Tensor bias = Tensor::zeros({3});
  EXPECT_THROW(update_bias(0.1, std::vector<std::int64_t>{1, 2}, bias.v1()), ShapeError);
}

}  // namespace
}  // namespace minke

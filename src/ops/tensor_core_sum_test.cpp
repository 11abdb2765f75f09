#include "ops/tensor_core_sum.h"

#include <gtest/gtest.h>

#include <vector>

namespace minke {
namespace {

float dot(const std::vector<float>& a, const std::vector<float>& b, const TensorCoreSum& how = {}) {
  const auto n = static_cast<Index>(a.size());
  return tensor_core_dot(View1<const float>(a.data(), {n}), View1<const float>(b.data(), {n}), how);
}

// 2^13 takes the 14th bit for its unit: what lies below is cut off, towards zero.
TEST(TensorCoreSum, KeepsFourteenBitsBelowTheLargestTerm) {
  EXPECT_EQ(dot({8192, 1.75f}, {1, 1}), 8193.0f);
  EXPECT_EQ(dot({8192, -1.75f}, {1, 1}), 8191.0f);
  EXPECT_EQ(dot({16384, 1.75f}, {1, 1}), 16384.0f);
  EXPECT_EQ(dot({16384, 1.75f}, {1, 1}, {.bits = 15}), 16385.0f);
  // Many small terms are lost one by one, where their sum would count.
  EXPECT_EQ(dot(std::vector<float>(16, 0.5f), std::vector<float>(16, 1.0f)), 8.0f);
  std::vector<float> with_large(32, 0.5f);
  with_large[7] = 8192;
  EXPECT_EQ(dot(with_large, std::vector<float>(32, 1.0f)), 8192.0f);
}

TEST(TensorCoreSum, TheAccumulatorIsATermOfTheNextInstruction) {
  std::vector<float> a(64, 0.5f);
  a[0] = 8192;
  const std::vector<float> ones(64, 1.0f);
  EXPECT_EQ(dot(a, ones), 8192.0f);
  // Promoted, the second instruction begins at zero.
  EXPECT_EQ(dot(a, ones, {.promote_every = 32}), 8192.0f + 16.0f);
}

TEST(TensorCoreSum, EmptyZeroAndRaggedSums) {
  EXPECT_EQ(dot({}, {}), 0.0f);
  EXPECT_EQ(dot(std::vector<float>(40, 0.0f), std::vector<float>(40, 2.0f)), 0.0f);
  EXPECT_EQ(dot(std::vector<float>(33, 1.0f), std::vector<float>(33, 2.0f)), 66.0f);
  EXPECT_EQ(dot(std::vector<float>(33, 1.0f), std::vector<float>(33, 2.0f), {.promote_every = 32}),
            66.0f);
}

}  // namespace
}  // namespace minke

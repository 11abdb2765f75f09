#include "infer/token_score.h"

#include <gtest/gtest.h>

#include <cmath>

namespace minke {
namespace {

TEST(TokenScore, IsTheLogarithmOfTheSoftmax) {
  const std::vector<float> z{1, -2, 0.5f, 3};
  double sum = 0, total = 0;
  for (const float x : z) sum += std::exp(static_cast<double>(x));
  for (std::int32_t v = 0; v < 4; ++v) {
    const double p = std::exp(static_cast<double>(z[static_cast<std::size_t>(v)])) / sum;
    EXPECT_NEAR(*score_token(z, v, 0).logprob, std::log(p), 1e-6) << v;
    total += std::exp(static_cast<double>(*score_token(z, v, 0).logprob));
  }
  EXPECT_NEAR(total, 1, 1e-6);
}

TEST(TokenScore, LargeLogitsDoNotOverflowAndUnlikelyTokensStayFinite) {
  const std::vector<float> z{3e38f, -3e38f, 1000};
  EXPECT_EQ(*score_token(z, 0, 0).logprob, 0);
  EXPECT_LT(*score_token({{1000, -1000}}, 1, 0).logprob, -1999);
  EXPECT_TRUE(std::isfinite(*score_token({{1000, -1000}}, 1, 0).logprob));
}

TEST(TokenScore, AlternativesComeMostLikelyFirst) {
  const std::vector<float> z{1, 4, 2, 4, 3};
  const ScoredToken token = score_token(z, 0, 3);
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_EQ(token.top[0].id, 1);  // ties: the lower id
  EXPECT_EQ(token.top[1].id, 3);
  EXPECT_EQ(token.top[2].id, 4);
  EXPECT_EQ(token.top[0].logprob, *score_token(z, 1, 0).logprob);
  EXPECT_EQ(score_token(z, 0, 99).top.size(), 5u);
  EXPECT_TRUE(score_token(z, 0, 0).top.empty());
}

}  // namespace
}  // namespace minke

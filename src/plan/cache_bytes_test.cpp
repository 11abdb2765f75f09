#include "plan/cache_bytes.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(CacheBytes, OfDeepSeekV3InBf16AndInFp8) {
  const PlanModel v3 = plan_model_preset("deepseek-v3");
  EXPECT_EQ(cache_row(v3).bytes(16), 61 * 576 * 2);
  EXPECT_EQ(fp8_cache_bytes(v3), 61 * (512 + 4 * 4 + 64 * 2));
}

TEST(CacheBytes, OtherSchemesHaveNoLatentRows) {
  EXPECT_EQ(fp8_cache_bytes(plan_model_preset("llama-3.1-405b")), 0);
}

}  // namespace
}  // namespace minke

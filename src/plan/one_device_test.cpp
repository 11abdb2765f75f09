#include "plan/one_device.h"

#include <gtest/gtest.h>

#include "plan/decode_bound.h"

namespace minke {
namespace {

TEST(OneDevice, ExpertsThatABatchChooses) {
  const PlanModel m = plan_model_preset("mini");
  EXPECT_DOUBLE_EQ(distinct_experts(m, 1), 4);
  EXPECT_NEAR(distinct_experts(m, 2), 4 + 4 * (1 - 4.0 / 32), 1e-12);
  EXPECT_NEAR(distinct_experts(m, 1e4), 32, 1e-9);
  EXPECT_EQ(distinct_experts(plan_model_preset("qwen2.5-72b"), 5), 0);
}

// Alone and without a cache it is the bound of a single stream, but for norms and biases.
TEST(OneDevice, OneStreamIsTheBound) {
  const PlanModel m = plan_model_preset("deepseek-v3");
  const Cluster c = cluster_preset("h200");
  EXPECT_NEAR(decode_tokens_per_s(m, c, {.weight_bits = 8}, 1),
              single_stream_tokens_per_s(m, c.memory_bytes_per_s, 8),
              0.001 * c.memory_bytes_per_s / 36e9);
  EXPECT_DOUBLE_EQ(decode_bytes(m, {.context = 1000}) - decode_bytes(m, {}), 1000 * 70272.0);
}

TEST(OneDevice, PrefillIsTheForwardPassWithOneRowOfTheHead) {
  const PlanModel m = plan_model_preset("moonlight-9l");
  Cluster c = cluster_preset("cpux1");
  const double speed = prefill_tokens_per_s(m, c, 512, {.bf16_efficiency = 1});
  const double flop = 2 * (813e6 - 32000.0 * 2048);  // without the head
  EXPECT_LT(speed, c.peak_bf16_flops_per_s / flop);
  EXPECT_GT(speed, 0.9 * c.peak_bf16_flops_per_s / flop);
  c.peak_bf16_flops_per_s *= 2;
  EXPECT_NEAR(prefill_tokens_per_s(m, c, 512, {.bf16_efficiency = 1}), 2 * speed, 1e-6 * speed);
}

}  // namespace
}  // namespace minke

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
  EXPECT_NEAR(decode_tokens_per_s(m, c, {.weights = {8, 8}}, 1),
              single_stream_tokens_per_s(m, c.memory_bytes_per_s, 8),
              0.001 * c.memory_bytes_per_s / 36e9);
  EXPECT_DOUBLE_EQ(decode_bytes(m, {.context = 1000}) - decode_bytes(m, {}), 1000 * 70272.0);
}

TEST(OneDevice, HeadAndGatesStayHighPrecision) {
  const PlanModel m = plan_model_preset("moonlight-9l");
  const double low = decode_bytes(m, {.weights = {8, 8}});
  const double gates = 8.0 * (64 * 2048 + 64), norms = (2 * 9 + 1) * 2048;
  EXPECT_DOUBLE_EQ(decode_bytes(m, {.weights = {8, 16}}) - low, 32000.0 * 2048 + gates + norms);
}

TEST(OneDevice, PrefillIsTheForwardPassWithOneRowOfTheHead) {
  const PlanModel m = plan_model_preset("moonlight-9l");
  Cluster c = cluster_preset("cpux1");
  c.memory_bytes_per_s = 1e30;  // products alone
  const double seconds = prefill_seconds(m, c, {.tokens = 512}, {});
  const double flop = 512 * 2 * (813e6 - 32000.0 * 2048);  // without the head
  EXPECT_GT(seconds, flop / c.peak_bf16_flops_per_s);
  EXPECT_LT(seconds, 1.1 * flop / c.peak_bf16_flops_per_s);
  c.peak_bf16_flops_per_s *= 2;
  EXPECT_NEAR(prefill_seconds(m, c, {.tokens = 512}, {}), seconds / 2, 1e-6 * seconds);
}

// With nothing but weights to pay for, a short prompt costs each touched expert, shared one and
// gate once.
TEST(OneDevice, ExpertsOfAPromptAreReadOnce) {
  const PlanModel m = plan_model_preset("mini");
  Cluster c = cluster_preset("cpux1");
  c.peak_bf16_flops_per_s = 1e30;
  const PrefillEfficiency slow_experts = {.moe_weights = 1e-9};
  const auto seconds = [&](Index tokens) {
    return prefill_seconds(m, c, {.tokens = tokens}, slow_experts);
  };
  const double expert = 3 * 512 * 256, gate = 32 * 512;
  EXPECT_NEAR(seconds(512) / seconds(1), (33 * expert + gate) / (5 * expert + gate), 1e-4);
}

TEST(OneDevice, PiecesExpandEarlierRowsAgain) {
  const PlanModel m = plan_model_preset("moonlight-9l");
  const Cluster c = cluster_preset("cpux1");
  EXPECT_GT(prefill_seconds(m, c, {.tokens = 4096, .piece = 1024}, {}),
            prefill_seconds(m, c, {.tokens = 4096, .piece = 4096}, {}));
}

}  // namespace
}  // namespace minke

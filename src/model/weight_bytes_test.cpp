#include "model/weight_bytes.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

// Two layers, one dense and one of four experts; every number of the expectation by hand.
ModelConfig by_hand() {
  ModelConfig c;
  c.vocab_size = 16;
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = 16;
  c.n_routed_experts = 4;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.first_k_dense_replace = 1;
  return c;
}

TEST(WeightBytes, AreThoseOfASmallModelCountedByHand) {
  const double q = 64 * 128, kv_a = 48 * 128, kv_b = 64 * 32, o = 128 * 32;
  const double dense = 3 * 256 * 128, expert = 3 * 32 * 128, norms = 128 + 32 + 128;
  const double gate = 4 * 128 + 4, head = 16 * 128;
  const WeightBytes plain = weight_bytes(by_hand(), LinearStorage::Plain, Compute::Bf16);
  const double always = 2 * (2 * (q + kv_a + kv_b + o) + dense + expert + head) +
                        4 * (2 * norms + gate + 128);  // the last one: the final norm
  EXPECT_EQ(plain.per_token, always + 2 * (2 * expert) + 2 * 128);
  EXPECT_EQ(plain.held, always + 2 * (4 * expert) + 2 * head + 2 * 2 * kv_b);

  // One block of 128x128 for every matrix but those of 256.
  const double linears = 2 * (q + kv_a + o) + dense + expert + 2 * expert;
  const double blocks = 2 * 3 + 3 * 2 + 3 + 2 * 3;
  const WeightBytes fp8 = weight_bytes(by_hand(), LinearStorage::E4m3, Compute::Bf16);
  EXPECT_EQ(fp8.per_token,
            linears + 4 * blocks + 2 * (2 * kv_b + head + 128) + 4 * (2 * norms + gate + 128));
  EXPECT_EQ(weight_bytes(by_hand(), LinearStorage::E4m3, Compute::Fp32).held,
            weight_bytes(by_hand(), LinearStorage::Plain, Compute::Fp32).held);
}

}  // namespace
}  // namespace minke

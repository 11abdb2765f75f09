#include "bench/step_bytes.h"

#include <gtest/gtest.h>

#include "bench/random_model.h"
#include "model/weight_bytes.h"

namespace minke::bench {
namespace {

// One dense and one MoE layer, in extents that need no padding.
ModelConfig by_hand() {
  ModelConfig c;
  c.vocab_size = 48;
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = 32;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = 16;
  c.n_routed_experts = 16;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.first_k_dense_replace = 1;
  c.max_position_embeddings = 64;
  return c;
}

Trace choices(std::vector<std::int32_t> experts, Index tokens) {
  Tensor indices(DType::I32, {tokens, static_cast<Index>(experts.size()) / tokens});
  std::copy(experts.begin(), experts.end(), static_cast<std::int32_t*>(indices.raw()));
  Trace trace;
  trace.gates.push_back({1, Tensor(), std::move(indices), Tensor()});
  return trace;
}

SequenceCache cache_of(const ModelConfig& c, DType dtype, Index rows) {
  SequenceCache cache(c, dtype);
  cache.reserve(rows);
  const Tensor zeros = Tensor::zeros({rows, c.cache_row()});
  for (Index layer = 0; layer < c.num_hidden_layers; ++layer) cache.append(layer, zeros.v2());
  return cache;
}

TEST(StepBytes, AreThoseOfASmallModelCountedByHand) {
  const ModelConfig c = by_hand();
  const Model model = random_model(c, {.compute = Compute::Bf16, .linear = WeightForm::Bf16});
  const SequenceCache a = cache_of(c, DType::BF16, 5), b = cache_of(c, DType::BF16, 3),
                      d = cache_of(c, DType::BF16, 1);
  const LatentCache* caches[] = {&a, &b, &d};
  const StepBytes bytes = step_bytes(model, caches, choices({0, 1, 1, 2, 1, 0}, 3));

  EXPECT_EQ(bytes.experts, 3);
  const double attention = 96 * 128 + 48 * 128 + 2 * (32 + 16) * 32 + 128 * 32;
  const double dense = 3 * 256 * 128, expert = 3 * 32 * 128, gate = 16 * 128 + 16;
  const double norms = 2 * (128 + 32 + 128) + 128, head = 48 * 128, rows = 3 * 128;
  EXPECT_EQ(bytes.weights,
            2 * (2 * attention + dense + (1 + 3) * expert + head + rows) + 4 * (norms + gate));
  EXPECT_EQ(bytes.cache, 2.0 * (5 + 3 + 1) * 2 * (32 + 16));
}

TEST(StepBytes, OfOneSequenceAreThoseForeseenFromTheConfiguration) {
  const ModelConfig c = by_hand();
  for (const WeightForm form : {WeightForm::Bf16, WeightForm::E4m3}) {
    const Model model = random_model(c, {.compute = Compute::Bf16, .linear = form});
    const SequenceCache cache = cache_of(c, DType::BF16, 1);
    const LatentCache* caches[] = {&cache};
    const LinearStorage storage =
        form == WeightForm::E4m3 ? LinearStorage::E4m3 : LinearStorage::Plain;
    EXPECT_EQ(step_bytes(model, caches, choices({4, 7}, 1)).weights,
              weight_bytes(c, storage, Compute::Bf16).per_token);
  }
}

}  // namespace
}  // namespace minke::bench

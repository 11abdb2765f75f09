#include "bench/random_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "infer/engine.h"
#include "model/small_model.h"

namespace minke::bench {
namespace {

double mean_square(const Tensor& t) {
  double sum = 0;
  for (Index i = 0; i < t.size(); ++i) sum += static_cast<double>(t.flat()(i)) * t.flat()(i);
  return sum / static_cast<double>(t.size());
}

Tensor logits(const Model& model, AttentionForm form) {
  SequenceCache cache(model.config, cache_dtype(model.compute));
  const std::int32_t ids[] = {3, 1, 4, 1, 5, 9};
  const StepInput input{&cache, ids, form};
  return step(model, std::span(&input, 1));
}

TEST(RandomModel, HasValuesOfSensibleScaleInEveryForm) {
  const std::pair<Compute, WeightForm> forms[] = {{Compute::Fp32, WeightForm::F32},
                                                  {Compute::Bf16, WeightForm::Bf16},
                                                  {Compute::Bf16, WeightForm::E4m3},
                                                  {Compute::Fp8, WeightForm::E4m3}};
  for (const auto& [compute, form] : forms) {
    const Model m = random_model(small_config(1), {.compute = compute, .linear = form});
    EXPECT_TRUE(m.weights.mtp.empty());
    const Weight& w = m.weights.layers[1].self_attn.o_proj;
    EXPECT_EQ(w.forward.form(), form);
    EXPECT_EQ(w.fp8_product, compute == Compute::Fp8);
    const Tensor y = logits(m, AttentionForm::Absorbed);
    ASSERT_EQ(y.size(), m.config.vocab_size);
    EXPECT_GT(mean_square(y), 0.2);
    EXPECT_LT(mean_square(y), 5);
  }
}

TEST(RandomModel, IsTheSameModelInBothFormsOfAttention) {
  const Model m =
      random_model(small_config(0), {.compute = Compute::Fp32, .linear = WeightForm::F32});
  const Tensor a = logits(m, AttentionForm::Absorbed), e = logits(m, AttentionForm::Expanded);
  for (Index i = 0; i < a.size(); ++i) EXPECT_NEAR(a.flat()(i), e.flat()(i), 1e-4);
}

TEST(RandomModel, LeavesOutWhatIsNotNeeded) {
  const Model decode = random_model(small_config(0), {.expanded = false});
  EXPECT_FALSE(decode.weights.layers[0].self_attn.kv_b_proj.forward.defined());
  const Model prefill = random_model(small_config(0), {.absorbed = false});
  EXPECT_TRUE(prefill.weights.layers[0].self_attn.kv_b_proj.head_keys.empty());
}

}  // namespace
}  // namespace minke::bench

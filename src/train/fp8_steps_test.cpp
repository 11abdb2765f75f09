// Whole steps of training in FP8.
#include <gtest/gtest.h>

#include "base/threads.h"
#include "model/small_model.h"
#include "train/training_step.h"

namespace minke {
namespace {

struct Steps {
  double first, last;
  Fp8LayerCounts counts;  // of the last step's first layer
};

// AdamW on the same rows again and again, in micro-batches of `micro_batch` rows.
Steps train(Compute compute, ScaleForm scales, Index micro_batch = 0) {
  const ModelConfig c = small_config();
  TrainingForm form;
  form.fp8_scales = scales;
  TrainState state = begin_training(c, initial_parameters(c, 3), MomentType::Bf16, compute, form);
  const Tensor tokens = random_tokens(4, 33, c.vocab_size, 5);
  PassResult pass;
  Steps steps{};
  for (int step = 0; step < 30; ++step) {
    accumulate_gradients(
        state, tokens.view<std::int32_t, 2>(), {.micro_batch = micro_batch}, [] { return false; },
        pass);
    if (step == 0) steps.first = pass.main;
    apply_gradients(state, {.lr = 1e-2}, 1e-3, pass, gradient_norm(c, state.gradients));
  }
  steps.last = pass.main;
  if (!pass.fp8.empty()) steps.counts = pass.fp8.front().counts;
  return steps;
}

TEST(Fp8Steps, LowerTheLossAsBf16Does) {
  const Steps bf16 = train(Compute::Bf16, {});
  ASSERT_LT(bf16.last, 0.8 * bf16.first);
  for (ScaleForm scales : {ScaleForm::Float, ScaleForm::PowerOfTwo}) {
    const Steps fp8 = train(Compute::Fp8, scales);
    EXPECT_NEAR(fp8.first, bf16.first, 0.02 * bf16.first);
    EXPECT_NEAR(bf16.first - fp8.last, bf16.first - bf16.last, 0.1 * (bf16.first - bf16.last));
  }
}

TEST(Fp8Steps, CountsOfMicroBatchesAddUp) {
  const Fp8LayerCounts whole = train(Compute::Fp8, ScaleForm::PowerOfTwo).counts;
  const Fp8LayerCounts parts = train(Compute::Fp8, ScaleForm::PowerOfTwo, 2).counts;
  EXPECT_EQ(parts.x.values, whole.x.values);
  EXPECT_EQ(parts.dy.values, whole.dy.values);
  EXPECT_EQ(parts.w.values, whole.w.values);
}

}  // namespace
}  // namespace minke

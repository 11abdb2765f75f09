// The three forms of latent attention agree: training, cached expanded, cached absorbed.
#include "model/mla.h"

#include <gtest/gtest.h>

#include "model/mla_decode.h"
#include "model/small_model.h"

namespace minke {
namespace {

TEST(Mla, TrainingExpandedAndAbsorbedAreTheSameFunction) {
  for (bool compressed : {true, false}) {
    ModelConfig c = small_config(0);
    if (!compressed) c.q_lora_rank.reset();
    ModelParameters<Tensor> masters = small_parameters(c);
    Model model = make_training_model(c, masters, Compute::Fp32);
    MlaWeights& w = model.weights.layers[0].self_attn;
    pack_absorbed(c, masters.layers[0].self_attn.kv_b_proj.v2(), WeightForm::F32, w.kv_b_proj);

    const Index T = 70;
    const auto x = std::make_shared<const Tensor>(random_tensor({T, c.hidden_size}, 3));
    Tensor trained = Tensor::zeros({T, c.hidden_size});
    mla_forward(model, w, {1, T}, x, trained.v2());
    for (AttentionForm form : {AttentionForm::Expanded, AttentionForm::Absorbed}) {
      SequenceCache cache(c, DType::F32);
      cache.reserve(T);
      const Segment segment{&cache, T, form};
      Tensor y = Tensor::zeros({T, c.hidden_size});
      mla_cached_forward(model, w, 0, {&segment, 1}, x->v2(), y.v2());
      for (Index i = 0; i < y.size(); ++i)
        ASSERT_NEAR(y.flat()(i), trained.flat()(i), 2e-5) << "element " << i;
    }
  }
}

// Two sequences in one batch are two sequences.
TEST(Mla, SequencesOfABatchDoNotSeeEachOther) {
  const ModelConfig c = small_config(0);
  ModelParameters<Tensor> masters = small_parameters(c);
  const Model model = make_training_model(c, masters, Compute::Fp32);
  const MlaWeights& w = model.weights.layers[1].self_attn;
  const Index T = 19;
  const auto both = std::make_shared<const Tensor>(random_tensor({2 * T, c.hidden_size}, 4));
  Tensor second = Tensor::zeros({T, c.hidden_size});
  for (Index i = 0; i < second.size(); ++i) second.flat()(i) = both->flat()(second.size() + i);
  Tensor y_both = Tensor::zeros(both->shape()), y_second = Tensor::zeros(second.shape());
  mla_forward(model, w, {2, T}, both, y_both.v2());
  mla_forward(model, w, {1, T}, std::make_shared<const Tensor>(std::move(second)), y_second.v2());
  for (Index i = 0; i < y_second.size(); ++i)
    EXPECT_EQ(y_second.flat()(i), y_both.flat()(y_second.size() + i));
}

}  // namespace
}  // namespace minke

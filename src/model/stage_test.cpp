#include "model/stage.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/small_model.h"
#include "model/training_pass.h"

namespace minke {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct Case {
  ModelConfig config = small_config(2);
  ModelParameters<Tensor> masters = small_parameters(config);
  Tensor ids = random_tokens(3, 18, config.vocab_size, 11);
  LossSettings settings{.alpha = 0.01, .share = 0.5};
  View2<const std::int32_t> tokens() const { return ids.view<std::int32_t, 2>(); }
};

enum class Weights : std::uint8_t { AtOnce, Later };

// A model whose other weights than those of the stage are missing.
Model model_of_stage(const ModelConfig& c, ModelParameters<Tensor>& masters, Compute compute,
                     const TrainingForm& form, const StageRange& range) {
  Model whole = make_training_model(c, masters, compute, form);
  ModelWeights part;
  const auto all = list_parameters(c, whole.weights);
  visit_parameters(c, range, part, [&](const ParameterSpec& spec, Weight& weight) {
    for (const NamedParameter<Weight>& from : all)
      if (from.spec.name == spec.name) weight = std::move(*from.leaf);
  });
  whole.weights = std::move(part);
  return whole;
}

struct Outcome {
  PassResult result;
  std::vector<StageGradients> gradients;
};

// All F in order, all B from the end, then all W, in an order that no schedule has.
Outcome run_stages(Case& s, Compute compute, const TrainingForm& form,
                   const std::vector<StageRange>& stages, Weights weights) {
  Outcome out;
  std::vector<Model> models;
  std::vector<StageSaved> saved;
  std::vector<StageWeightWork> work(stages.size());
  std::vector<PassResult> results;
  Tensor x;
  for (const StageRange& range : stages) {
    models.push_back(model_of_stage(s.config, s.masters, compute, form, range));
    out.gradients.push_back(zero_gradients(s.config, range));
    results.push_back(start_result(models.back(), range));
    Tensor y;
    saved.push_back(stage_forward(models.back(), {range, s.settings}, s.tokens(), std::move(x), y,
                                  out.gradients.back().targets(), results.back()));
    EXPECT_EQ(y.defined(), !range.output);
    x = std::move(y);
  }
  Tensor dy;
  for (std::size_t i = stages.size(); i-- > 0;) {
    Tensor dx;
    const StagePass pass{stages[i], s.settings};
    if (weights == Weights::AtOnce)
      stage_backward(models[i], pass, std::move(dy), std::move(saved[i]), dx,
                     out.gradients[i].targets(), results[i]);
    else
      work[i] =
          stage_backward_input(models[i], pass, std::move(dy), std::move(saved[i]), dx, results[i]);
    EXPECT_EQ(dx.defined(), !stages[i].embedding);
    dy = std::move(dx);
  }
  if (weights == Weights::Later)
    for (std::size_t i = 0; i < stages.size(); ++i)
      stage_backward_weight(models[i], std::move(work[i]), out.gradients[i].targets());
  out.result = joined(std::move(results));
  return out;
}

void expect_same(const PassResult& a, const PassResult& b) {
  EXPECT_EQ(a.total, b.total);
  EXPECT_EQ(a.main, b.main);
  EXPECT_EQ(a.mtp_k, b.mtp_k);
  EXPECT_EQ(a.balance, b.balance);
  ASSERT_EQ(a.moe.size(), b.moe.size());
  for (std::size_t i = 0; i < a.moe.size(); ++i) {
    EXPECT_EQ(a.moe[i].layer, b.moe[i].layer);
    EXPECT_EQ(a.moe[i].load, b.moe[i].load);
  }
  ASSERT_EQ(a.fp8.size(), b.fp8.size());
  for (std::size_t i = 0; i < a.fp8.size(); ++i) EXPECT_EQ(a.fp8[i].layer, b.fp8[i].layer);
}

// The tensor of a name in the stage that holds it, the embedding of MTP modules left out.
const Tensor* find(const ModelConfig& c, const std::vector<StageRange>& stages, Outcome& out,
                   const std::string& name) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Tensor* found = nullptr;
    visit_parameters(c, stages[i], out.gradients[i].parameters,
                     [&](const ParameterSpec& spec, Tensor& t) {
                       if (spec.name == name && t.defined()) found = &t;
                     });
    if (found) return found;
  }
  return nullptr;
}

class StageForms : public testing::TestWithParam<std::tuple<Compute, bool>> {};

TEST_P(StageForms, HaveTheBitsOfTheWholeModel) {
  const auto [compute, recompute] = GetParam();
  TrainingForm form;
  form.recompute.rmsnorm = form.recompute.mla_up = recompute;
  Case s;
  const std::vector<StageRange> one{whole_model(s.config)};
  Outcome whole = run_stages(s, compute, form, one, Weights::AtOnce);
  for (Index n = 1; n <= 4; ++n)
    for (const Weights weights : {Weights::AtOnce, Weights::Later}) {
      SCOPED_TRACE(
          fmt::format("{} stages, W {}", n, weights == Weights::Later ? "later" : "at once"));
      const std::vector<StageRange> stages = cut_stages(s.config, n);
      Outcome parts = run_stages(s, compute, form, stages, weights);
      expect_same(parts.result, whole.result);
      visit_parameters(s.config, whole.gradients[0].parameters,
                       [&](const ParameterSpec& spec, Tensor& want) {
                         const Tensor* have = find(s.config, stages, parts, spec.name);
                         ASSERT_TRUE(have) << spec.name;
                         EXPECT_TRUE(same_bits(*have, want)) << spec.name;
                       });
      EXPECT_TRUE(same_bits(parts.gradients.back().embedding_of_mtp,
                            whole.gradients.back().embedding_of_mtp));
    }
}

INSTANTIATE_TEST_SUITE_P(
    Compute, StageForms,
    testing::Combine(testing::Values(Compute::Fp32, Compute::Bf16, Compute::Fp8), testing::Bool()),
    [](const auto& info) {
      return std::string(name_of(std::get<0>(info.param))) +
             (std::get<1>(info.param) ? "_recomputed" : "_kept");
    });

// Both uses of the embedding into one tensor, as the ordinary pass adds them, against apart.
TEST(Stage, BothUsesOfTheEmbeddingMakeUpItsGradient) {
  Case s;
  const Model model = make_training_model(s.config, s.masters, Compute::Fp32);
  ModelGradients together = zero_parameters(s.config);
  const PassResult pass = forward_backward(model, s.tokens(), s.settings, together);
  Outcome apart = run_stages(s, Compute::Fp32, {}, {whole_model(s.config)}, Weights::Later);
  EXPECT_EQ(pass.total, apart.result.total);
  const Tensor& inputs = apart.gradients[0].parameters.embed_tokens;
  const Tensor& mtp = apart.gradients[0].embedding_of_mtp;
  float largest = 0, of_mtp = 0;
  for (Index i = 0; i < inputs.size(); ++i) {
    largest = std::max(largest, std::abs(together.embed_tokens.flat()(i)));
    of_mtp = std::max(of_mtp, std::abs(mtp.flat()(i)));
  }
  EXPECT_GT(of_mtp, 0);
  // Few additions a row, in another order.
  for (Index i = 0; i < inputs.size(); ++i)
    ASSERT_NEAR(together.embed_tokens.flat()(i), inputs.flat()(i) + mtp.flat()(i), 1e-5f * largest);
}

TEST(Stage, HasMemoryForItsOwnGradientsAlone) {
  const ModelConfig c = small_config(1);
  const std::vector<StageRange> stages = cut_stages(c, 3);
  StageGradients first = zero_gradients(c, stages.front()), last = zero_gradients(c, stages.back());
  EXPECT_TRUE(first.parameters.embed_tokens.defined());
  EXPECT_FALSE(first.embedding_of_mtp.defined());
  EXPECT_FALSE(first.parameters.lm_head.defined());
  EXPECT_FALSE(last.parameters.embed_tokens.defined());
  EXPECT_TRUE(last.embedding_of_mtp.defined());
  EXPECT_TRUE(last.parameters.lm_head.defined());
  EXPECT_EQ(list_tensors(c, stages.back(), last).back(), &last.embedding_of_mtp);
}

}  // namespace
}  // namespace minke

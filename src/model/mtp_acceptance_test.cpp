#include "model/mtp_acceptance.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/small_model.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

// With blocks that add `noise` of what they compute, and a module that takes the embedding of its
// token for the state, plus `noise`: without noise the main model's next token depends on the last
// one alone and the module is always right; with it, sometimes.
ModelParameters<Tensor> parameters(const ModelConfig& c, float noise) {
  ModelParameters<Tensor> p = small_parameters(c);
  visit_parameters(c, p, [&](const ParameterSpec& spec, Tensor& t) {
    const auto scale = [&](float factor) {
      for (Index i = 0; i < t.size(); ++i) t.flat()(i) *= factor;
    };
    if (spec.role == Role::Norm)
      for (Index i = 0; i < t.size(); ++i) t.flat()(i) = 1;
    if (spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight"))
      scale(noise);
    if (spec.role != Role::EhProj) return;
    scale(noise);
    for (Index i = 0; i < c.hidden_size; ++i) t.v2()(i, i) += 1;
  });
  return p;
}

Model loaded(float noise, Index mtp = 1) {
  const ModelConfig c = small_config(mtp);
  ModelParameters<Tensor> p = parameters(c, noise);
  const auto dir =
      std::filesystem::temp_directory_path() / ("minke_mtp_acceptance_" + std::to_string(getpid()));
  std::filesystem::create_directories(dir);
  save_model(dir, c, p, SaveDType::F32);
  Model model = load_model(dir, {.compute = Compute::Fp32});
  std::filesystem::remove_all(dir);
  return model;
}

Ids text(Index n, std::uint64_t seed) {
  const Tensor tokens = random_tokens(1, n, 61, seed);
  const auto* ids = static_cast<const std::int32_t*>(tokens.raw());
  return Ids(ids, ids + n);
}

std::int32_t likeliest(const Model& model, View2<const float> h) {
  const Tensor logits = output_logits(model, h.rows(h.extent(0) - 1, 1));
  return static_cast<std::int32_t>(
      std::max_element(logits.flat().data(), logits.flat().data() + logits.size()) -
      logits.flat().data());
}

// The definition, one position at a time and everything read anew.
bool accepted_at(const Model& model, const Ids& tokens, Index i) {
  Ids read(tokens.begin(), tokens.begin() + i + 1);
  const auto states = [&](SequenceCache& cache) {
    cache.reserve(static_cast<Index>(read.size()));
    const Segment segment{&cache, static_cast<Index>(read.size()), AttentionForm::Expanded};
    return cached_forward(model, read, {&segment, 1});
  };
  SequenceCache first(model.config, DType::F32), second(model.config, DType::F32);
  const Tensor h = states(first);
  read.push_back(likeliest(model, h.v2()));
  const std::int32_t target = likeliest(model, states(second).v2());
  const Segment segment{&first, i + 1, AttentionForm::Expanded};
  const Tensor module =
      cached_mtp_forward(model, 0, std::span(read).subspan(1), h.v2(), {&segment, 1});
  return likeliest(model, module.v2()) == target;
}

TEST(MtpAcceptance, IsWhatTheDefinitionSaysInBothForms) {
  const Model model = loaded(0.25f);
  const std::vector<Ids> texts = {text(40, 1), text(1, 2), text(23, 3), text(64, 4)};
  for (const Index every : {1, 3, 16}) {
    Index seen = 0, accepted = 0;
    std::vector<Acceptance> expected(texts.size());
    for (std::size_t s = 0; s < texts.size(); ++s)
      for (Index i = every - 1; i < static_cast<Index>(texts[s].size()); i += every)
        expected[s] += {1, accepted_at(model, texts[s], i) ? 1 : 0};
    for (const AttentionForm form : {AttentionForm::Absorbed, AttentionForm::Expanded}) {
      const auto found = mtp_acceptance(model, texts, {.every = every, .form = form});
      ASSERT_EQ(found.size(), texts.size());
      for (std::size_t s = 0; s < texts.size(); ++s) {
        EXPECT_EQ(found[s].positions, expected[s].positions) << every << " " << s;
        EXPECT_EQ(found[s].accepted, expected[s].accepted) << every << " " << s;
        seen += found[s].positions;
        accepted += found[s].accepted;
      }
    }
    if (every > 3) continue;
    EXPECT_GT(accepted, 0) << "the test looks at a module that is never right";
    EXPECT_LT(accepted, seen) << "or always";
  }
}

TEST(MtpAcceptance, APerfectModuleIsAlwaysRight) {
  const Model model = loaded(0);
  const std::vector<Ids> texts = {text(50, 5)};
  const Acceptance found = mtp_acceptance(model, texts, {.every = 2}).at(0);
  EXPECT_EQ(found.positions, 25);
  EXPECT_EQ(found.share(), 1);
}

TEST(MtpAcceptance, WorksOnAModelInTraining) {
  const ModelConfig c = small_config(1);
  ModelParameters<Tensor> p = parameters(c, 0.25f);
  const Model training = make_training_model(c, p, Compute::Fp32);
  const std::vector<Ids> texts = {text(48, 6)};
  const AcceptanceSettings settings{.every = 2, .form = AttentionForm::Expanded};
  EXPECT_EQ(mtp_acceptance(training, texts, settings).at(0).accepted,
            mtp_acceptance(loaded(0.25f), texts, settings).at(0).accepted);
}

TEST(MtpAcceptance, NeedsAModule) {
  const std::vector<Ids> texts = {text(8, 7)};
  EXPECT_THROW(mtp_acceptance(loaded(0, 0), texts, {}), ConfigError);
  EXPECT_TRUE(mtp_acceptance(loaded(0), {}, {}).empty());
}

// The values of the usual tables.
TEST(MtpAcceptance, WilsonInterval) {
  const auto all = Acceptance{10, 10}.interval(), half = Acceptance{10, 5}.interval();
  EXPECT_NEAR(all.low, 0.7225, 5e-5);
  EXPECT_DOUBLE_EQ(all.high, 1);
  EXPECT_NEAR(half.low, 0.2366, 5e-5);
  EXPECT_NEAR(half.high, 0.7634, 5e-5);
  EXPECT_EQ(Acceptance{}.interval().high, 1);
  EXPECT_TRUE(std::isnan(Acceptance{}.share()));
}

}  // namespace
}  // namespace minke

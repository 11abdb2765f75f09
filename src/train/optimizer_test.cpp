#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "io/tensor_store.h"
#include "model/checkpoint.h"
#include "ops/adamw.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

ModelConfig small_config() {
  ModelConfig c = ModelConfig::load(fs::path(MINKE_GOLDEN_DIR) / "train-step");
  c.vocab_size = 3000;  // an embedding of several pieces
  return c;
}

void fill(const ModelConfig& config, ModelParameters<Tensor>& tensors, double scale) {
  double x = 0;
  visit_parameters(config, tensors, [&](const ParameterSpec&, Tensor& tensor) {
    for (Index i = 0; i < tensor.size(); ++i)
      tensor.flat()(i) = static_cast<float>(scale * std::sin(x += 0.7));
  });
}

// The published gradients in, the published parameters of step 1 out: the update by itself.
TEST(OptimizerGolden, OneUpdateFromTheGradientsOfTheCase) {
  const fs::path dir = fs::path(MINKE_GOLDEN_DIR) / "train-step";
  const SafetensorsFile expected = SafetensorsFile::open(dir / "expected.safetensors");
  ModelConfig config;
  ModelParameters<Tensor> masters = load_masters(dir, config);
  ModelParameters<Tensor> gradients = zero_parameters(config);
  for (const auto& [spec, leaf] : list_parameters(config, gradients)) {
    if (spec.role == Role::Bias) continue;
    const Tensor grad = expected.read("grad." + spec.name);
    for (Index i = 0; i < grad.size(); ++i)
      leaf->flat()(i) = static_cast<float>(static_cast<const double*>(grad.raw())[i]);
  }
  const OptimizerSettings settings{.lr = 1e-3, .weight_decay = 0.1, .clip = 1};
  Moments moments = zero_moments(config, MomentType::Fp32);
  const double norm = gradient_norm(config, gradients);
  EXPECT_NEAR(norm, 7.236729364326809, 1e-6 * 7.2);
  optimizer_step(config, settings, 1, norm, gradients, moments, masters);

  for (const auto& [spec, leaf] : list_parameters(config, masters)) {
    if (spec.role == Role::Bias) continue;
    const Tensor want = expected.read("step1." + spec.name);
    for (Index i = 0; i < want.size(); ++i)
      ASSERT_NEAR(leaf->flat()(i), want.flat()(i), 1e-6) << spec.name << "[" << i << "]";
  }
  EXPECT_EQ(gradient_norm(config, gradients), 0.0);  // zero afterwards
}

TEST(Optimizer, SameBitsOnAnyNumberOfThreads) {
  const ModelConfig config = small_config();
  std::vector<float> first_run;
  for (int threads : {1, 2, 3}) {
    set_threads(threads);
    ModelParameters<Tensor> masters = initial_parameters(config, 3),
                            gradients = zero_parameters(config);
    fill(config, gradients, 0.1);
    Moments moments = zero_moments(config, MomentType::Bf16);
    const double norm = gradient_norm(config, gradients);
    optimizer_step(config, {.lr = 0.01}, 1, norm, gradients, moments, masters);
    std::vector<float> run{static_cast<float>(norm)};
    visit_parameters(config, masters, [&](const ParameterSpec&, Tensor& t) {
      run.insert(run.end(), t.flat().data(), t.flat().data() + t.size());
    });
    if (first_run.empty()) first_run = run;
    EXPECT_EQ(run, first_run) << threads << " threads";
  }
  set_threads(available_cores());
}

TEST(Optimizer, DecayActsOnMatricesOnly) {
  const ModelConfig config = small_config();
  ModelParameters<Tensor> masters = initial_parameters(config, 3),
                          gradients = zero_parameters(config);
  ModelParameters<Tensor> before = initial_parameters(config, 3);
  Moments moments = zero_moments(config, MomentType::Bf16);
  optimizer_step(config, {.lr = 0.5, .weight_decay = 0.5}, 1, 0, gradients, moments, masters);
  const auto after = list_parameters(config, masters);
  const auto initial = list_parameters(config, before);
  for (std::size_t i = 0; i < after.size(); ++i) {
    const bool decays = after[i].spec.role != Role::Norm && after[i].spec.role != Role::Bias;
    EXPECT_EQ(after[i].leaf->flat()(0), initial[i].leaf->flat()(0) * (decays ? 0.75f : 1.0f))
        << after[i].spec.name;
  }
}

TEST(Optimizer, ClippingScalesAllGradientsAlike) {
  const ModelConfig config = small_config();
  const auto moment_after = [&](double clip, double scale) {
    ModelParameters<Tensor> masters = initial_parameters(config, 3),
                            gradients = zero_parameters(config);
    fill(config, gradients, scale);
    Moments moments = zero_moments(config, MomentType::Fp32);
    optimizer_step(config, {.lr = 0, .clip = clip}, 1, gradient_norm(config, gradients), gradients,
                   moments, masters);
    return gradient_norm(config, moments.first) / (1 - 0.9);
  };
  EXPECT_NEAR(moment_after(0.25, 1), 0.25, 1e-5);
  EXPECT_NEAR(moment_after(0.25, 1e-5), moment_after(0, 1e-5), 1e-9);  // below the limit: untouched
  EXPECT_GT(moment_after(0, 1), 10);
}

TEST(Optimizer, PatternsSayWhichTensorsDoNotDecay) {
  const ModelConfig config = small_config();
  ModelParameters<Tensor> masters = initial_parameters(config, 3),
                          gradients = zero_parameters(config);
  ModelParameters<Tensor> before = initial_parameters(config, 3);
  Moments moments = zero_moments(config, MomentType::Bf16);
  const OptimizerSettings settings{
      .lr = 0.5, .weight_decay = 0.5, .no_decay = {"model.embed_tokens.*", "*.gate.weight"}};
  check_no_decay(config, settings.no_decay);
  optimizer_step(config, settings, 1, 0, gradients, moments, masters);
  const auto after = list_parameters(config, masters);
  const auto initial = list_parameters(config, before);
  for (std::size_t i = 0; i < after.size(); ++i) {
    const Role role = after[i].spec.role;
    const bool decays = role != Role::Embedding && role != Role::Router && role != Role::Bias;
    EXPECT_EQ(after[i].leaf->flat()(0), initial[i].leaf->flat()(0) * (decays ? 0.75f : 1.0f))
        << after[i].spec.name;
  }
}

TEST(Optimizer, APatternThatMatchesNothingIsNamed) {
  try {
    check_no_decay(small_config(), {"*norm.weight", "*.bias"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("'*.bias'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace minke

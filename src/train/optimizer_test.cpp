#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/threads.h"
#include "io/tensor_store.h"
#include "model/checkpoint.h"
#include "ops/adamw.h"
#include "parallel/mesh.h"
#include "parallel/thread_ranks.h"
#include "parallel/zero1.h"

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

// The tensors of a rank: those of its share of the routed experts, or all that belong to none.
struct Held {
  std::vector<ShardedTensor> tensors;
  std::vector<Tensor*> gradients;
};
Held held_by(const ModelConfig& config, ModelParameters<Tensor>& weights,
             ModelParameters<Tensor>& gradients, std::optional<IndexRange> experts) {
  const ModelPieces pieces = pieces_of_model(config);
  const auto weight = list_parameters(config, weights),
             gradient = list_parameters(config, gradients);
  Held held;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const ParameterSpec& spec = weight[i].spec;
    if (spec.role == Role::Bias) continue;
    const std::size_t at = spec.name.find(".experts.");
    if ((at != std::string::npos) != experts.has_value()) continue;
    if (experts) {
      const Index expert = std::stoll(spec.name.substr(at + 9));
      if (expert < experts->begin || expert >= experts->end) continue;
    }
    held.tensors.push_back(
        {spec.name, weight[i].leaf, spec.role != Role::Norm, pieces.first.at(spec.name)});
    held.gradients.push_back(gradient[i].leaf);
  }
  return held;
}

std::vector<float> values_of(const Held& held) {
  std::vector<float> values;
  for (const ShardedTensor& t : held.tensors)
    values.insert(values.end(), t.weight->flat().data(),
                  t.weight->flat().data() + t.weight->size());
  return values;
}

// One step on meshes of 1 to 6 ranks, experts spread over some of them: norm and weights have the
// bits of optimizer_step. Only data rank 0 has a gradient, so that nothing depends on sums.
TEST(Optimizer, ShardedStatesOnThreadsGiveTheBitsOfOneRank) {
  const ModelConfig config = small_config();
  ModelParameters<Tensor> masters = initial_parameters(config, 3),
                          gradients = zero_parameters(config);
  fill(config, gradients, 0.1);
  Moments moments = zero_moments(config, MomentType::Bf16);
  const OptimizerSettings settings{.lr = 0.01, .weight_decay = 0.1, .clip = 1};
  const double norm = gradient_norm(config, gradients);
  optimizer_step(config, settings, 1, norm, gradients, moments, masters);
  const Index n_experts = config.n_routed_experts;

  for (const MeshShape shape : {MeshShape{1, 1, 1}, MeshShape{1, 1, 3}, MeshShape{1, 2, 2}})
    run_ranks(static_cast<int>(shape.n_ranks()), [&](Communicator& world) {
      const Mesh mesh(world, shape);
      const IndexRange experts = share_of(n_experts, shape.expert, mesh.place().expert);
      ModelParameters<Tensor> weights = initial_parameters(config, 3),
                              own = zero_parameters(config);
      fill(config, own, 0.1);
      const Held dense = held_by(config, weights, own, {}),
                 routed = held_by(config, weights, own, experts);
      ShardedOptimizer dense_states(mesh.data_group(), dense.tensors, {}),
          routed_states(mesh.expert_data_group(), routed.tensors, {});
      const auto terms = [](const Held& held, bool any) {
        return std::vector<GradientTerm>(any ? 1 : 0, whole_term(0, held.gradients));
      };
      dense_states.reduce_gradients(terms(dense, mesh.data_rank() == 0));
      routed_states.reduce_gradients(terms(routed, mesh.place().data == 0));
      std::vector<PieceSum> sums = dense_states.squares();
      for (const PieceSum& sum : routed_states.squares()) sums.push_back(sum);
      EXPECT_EQ(gradient_norm(world, sums, pieces_of_model(config).count), norm);
      const AdamW adamw{.lr = 0.01,
                        .weight_decay = 0.1,
                        .step = 1,
                        .gradient_scale = std::min(1.0, 1 / (norm + 1e-6))};
      for (ShardedOptimizer* states : {&dense_states, &routed_states}) {
        states->update(adamw);
        states->gather_weights();
      }
      EXPECT_EQ(values_of(dense), values_of(held_by(config, masters, own, {})));
      EXPECT_EQ(values_of(routed), values_of(held_by(config, masters, own, experts)));
    });
}

}  // namespace
}  // namespace minke

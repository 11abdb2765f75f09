#include "train/guard.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/small_model.h"
#include "train/training_step.h"

namespace minke {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Step {
  TrainState state = begin_training(small_config(1), small_parameters(small_config(1)),
                                    MomentType::Bf16, Compute::Fp32);
  PassResult result;
  double norm = 0;

  void pass() {
    const Tensor tokens = random_tokens(2, 12, state.config.vocab_size, 3);
    accumulate_gradients(
        state, tokens.view<std::int32_t, 2>(), {}, [] { return false; }, result);
    norm = gradient_norm(state.config, state.gradients);
  }
  std::optional<Fault> fault() {
    norm = gradient_norm(state.config, state.gradients);
    return find_not_finite(state, result, norm);
  }
};

TEST(Guard, AStepWithoutFaultHasNone) {
  Step s;
  s.pass();
  EXPECT_FALSE(s.fault());
}

// Every gradient is NaN then; the weight is the cause.
TEST(Guard, NamesAWeightThatIsNotFinite) {
  Step s;
  s.state.masters.layers[1].self_attn.o_proj.flat()(17) = kNan;
  refresh(s.state.model, s.state.masters);
  s.pass();
  const auto fault = s.fault();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->tensor, "model.layers.1.self_attn.o_proj.weight");
  EXPECT_EQ(fault->layer, 1);
  EXPECT_TRUE(fault->in_weights);
  EXPECT_EQ(fault->what, "the weight model.layers.1.self_attn.o_proj.weight[17] is not finite");
}

// What is lower was reached later by the backward pass.
TEST(Guard, NamesTheGradientThatBackwardReachedFirst) {
  Step s;
  s.pass();
  s.state.gradients.embed_tokens.flat()(0) = kNan;
  s.state.gradients.layers[0].mlp.up_proj.flat()(1) = kNan;
  s.state.gradients.layers[2].moe.gate.flat()(5) = std::numeric_limits<float>::infinity();
  const auto fault = s.fault();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->what, "the gradient model.layers.2.mlp.gate.weight[5] is not finite");
  EXPECT_EQ(fault->layer, 2);
  EXPECT_FALSE(fault->in_weights);
}

TEST(Guard, NamesTheLoss) {
  Step s;
  s.pass();
  s.result.mtp = s.result.total = std::numeric_limits<double>::infinity();
  EXPECT_EQ(s.fault()->tensor, "loss.mtp");
  EXPECT_EQ(s.fault()->layer, std::nullopt);
}

TEST(Guard, NamesTheOutputThatMadeTheLossNotFinite) {
  Step s;
  Tensor& o_proj = s.state.masters.layers[1].self_attn.o_proj;
  for (Index i = 0; i < o_proj.size(); ++i) o_proj.flat()(i) = i % 2 ? 3e38f : -3e38f;
  refresh(s.state.model, s.state.masters);
  s.pass();
  auto fault = s.fault();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->tensor, "loss.main");
  const Tensor tokens = random_tokens(2, 12, s.state.config.vocab_size, 3);
  SuspectRow row{{}, "a", find_non_finite_output(s.state.model, tokens.view<std::int32_t, 2>())};
  name_output(*fault, row);
  EXPECT_EQ(fault->tensor, "layers.1.attn_out");
  EXPECT_EQ(fault->layer, 1);
  EXPECT_EQ(fault->what,
            "the loss (main) is not finite: the forward pass is not from layers.1.attn_out on");
  EXPECT_EQ(event_line(7, "not_finite", *fault, row)["layer"], 1);

  Fault gradient{
      .kind = Fault::Kind::NotFinite, .tensor = "model.norm.weight", .layer = {}, .what = "x"};
  name_output(gradient, row);  // the loss was finite: another cause
  EXPECT_EQ(gradient.tensor, "model.norm.weight");
  row.output.reset();
  fault->what = "x";
  name_output(*fault, row);
  EXPECT_EQ(fault->what, "x");
}

Guard full_guard(GuardRecipe recipe) {
  Guard guard(recipe);
  for (Index i = 0; i < recipe.window; ++i)
    guard.record_step(4 + (i % 2 == 0 ? 0.1 : -0.1), 1 + 0.01 * static_cast<double>(i));
  return guard;
}

TEST(Guard, OneHugeGradientIsASpikeOfItsTensor) {
  Step s;
  s.pass();
  s.state.gradients.layers[1].self_attn.kv_b_proj.flat()(3) = 1e6f;
  s.norm = gradient_norm(s.state.config, s.state.gradients);
  const Guard guard = full_guard({.spike_gradient = 20, .window = 8});
  const auto fault = guard.find_spike(s.state, 4, s.norm);
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->tensor, "model.layers.1.self_attn.kv_b_proj.weight");
  EXPECT_EQ(fault->layer, 1);
  EXPECT_NE(fault->what.find("1e+06"), std::string::npos) << fault->what;
}

TEST(Guard, JudgesByDeviationsAndByTheMedian) {
  Step s;
  // Mean 4, deviation 0.1; median norm 1.04.
  const Guard guard = full_guard({.spike_deviations = 5, .spike_gradient = 10, .window = 8});
  EXPECT_FALSE(guard.find_spike(s.state, 4.49, 10.3));
  EXPECT_EQ(guard.find_spike(s.state, 4.51, 1)->tensor, "loss.main");
  EXPECT_TRUE(guard.find_spike(s.state, 4, 10.5));
  EXPECT_FALSE(guard.find_spike(s.state, -100, 1));  // falling is no spike
  EXPECT_FALSE(full_guard({.spike = "ignore", .window = 8}).find_spike(s.state, 1e9, 1e9));
  EXPECT_FALSE(full_guard({.spike_deviations = 0, .spike_gradient = 0, .window = 8})
                   .find_spike(s.state, 1e9, 1e9));
}

TEST(Guard, WaitsForAFullWindowAndAllowsForAFlutter) {
  Step s;
  Guard guard({.spike_deviations = 3, .window = 4});
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(guard.find_spike(s.state, 1e9, 1)) << i;
    guard.record_step(2, 1);
  }
  EXPECT_FALSE(guard.find_spike(s.state, 2.05, 1));  // 1 % of the mean is a deviation
  EXPECT_TRUE(guard.find_spike(s.state, 2.07, 1));
}

TEST(Guard, FormatOfItsStateIsChecked) {
  Guard guard = full_guard({.window = 8});
  guard.record_skip();
  const nlohmann::ordered_json json = guard.to_json();
  Guard again({.window = 8});
  again.set_from_json(nlohmann::ordered_json::parse(json.dump()), "state");
  EXPECT_EQ(again.to_json(), json);
  EXPECT_EQ(again.skips_in_a_row(), 1);
  for (const char* text : {"{}", R"({"losses": [1], "norms": [], "skips_in_a_row": 0})",
                           R"({"losses": ["1"], "norms": [1], "skips_in_a_row": 0})",
                           R"({"losses": [1], "norms": [1], "skips_in_a_row": -1})"})
    EXPECT_THROW(again.set_from_json(nlohmann::ordered_json::parse(text), "state"), FormatError)
        << text;
}

TEST(Guard, ASkippedStepChangesNoWeight) {
  Step s;
  s.pass();
  ModelParameters<Tensor> before = small_parameters(small_config(1));
  s.state.gradients.norm.v1()(0) = kNan;
  skip_step(s.state);
  EXPECT_EQ(s.state.step, 1);
  EXPECT_EQ(s.state.skipped, 1);
  EXPECT_EQ(gradient_norm(s.state.config, s.state.gradients), 0);
  EXPECT_EQ(s.state.masters.norm.v1()(0), before.norm.v1()(0));
}

}  // namespace
}  // namespace minke

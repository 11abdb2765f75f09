#include "model/training_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "model/small_model.h"

namespace minke {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct Trainable {
  ModelConfig config = small_config(2);
  ModelParameters<Tensor> masters = small_parameters(config);
  Model model = make_training_model(config, masters, Compute::Fp32);
  Tensor tokens = random_tokens(4, 18, config.vocab_size, 11);
  View2<const std::int32_t> view() const { return tokens.view<std::int32_t, 2>(); }
};

TEST(TrainingPass, MicroBatchesAddUpToTheWholeBatch) {
  Trainable s;
  ModelGradients whole = zero_parameters(s.config), parts = zero_parameters(s.config);
  const PassResult all = forward_backward(s.model, s.view(), {.alpha = 0.01}, whole);
  PassResult sum;
  for (Index b = 0; b < 4; b += 2) {
    const PassResult r =
        forward_backward(s.model, s.view().rows(b, 2), {.alpha = 0.01, .share = 0.5}, parts);
    sum.total += r.total;
    sum.balance += r.balance;
  }
  EXPECT_NEAR(sum.total, all.total, 1e-6 * all.total);
  EXPECT_NEAR(sum.balance, all.balance, 1e-6 * all.balance);
  const auto a = list_parameters(s.config, whole), b = list_parameters(s.config, parts);
  for (std::size_t i = 0; i < a.size(); ++i) {
    float largest = 0;
    for (Index j = 0; j < a[i].leaf->size(); ++j)
      largest = std::max(largest, std::fabs(a[i].leaf->flat()(j)));
    for (Index j = 0; j < a[i].leaf->size(); ++j)
      ASSERT_NEAR(b[i].leaf->flat()(j), a[i].leaf->flat()(j), 1e-5f * largest) << a[i].spec.name;
  }
}

TEST(TrainingPass, SameBitsOnAnyNumberOfThreads) {
  for (Compute compute : {Compute::Fp32, Compute::Bf16}) {
    Trainable s;
    s.model = make_training_model(s.config, s.masters, compute);
    set_threads(1);
    ModelGradients one = zero_parameters(s.config);
    const PassResult first = forward_backward(s.model, s.view(), {}, one);
    for (int threads : {2, 3}) {
      set_threads(threads);
      ModelGradients more = zero_parameters(s.config);
      EXPECT_EQ(forward_backward(s.model, s.view(), {}, more).total, first.total);
      const auto a = list_parameters(s.config, one), b = list_parameters(s.config, more);
      for (std::size_t i = 0; i < a.size(); ++i)
        EXPECT_EQ(0, std::memcmp(a[i].leaf->raw(), b[i].leaf->raw(), a[i].leaf->bytes()))
            << a[i].spec.name;
    }
    set_threads(available_cores());
  }
}

// The whole gradient along a random direction against a central difference of the total loss.
TEST(TrainingPass, DirectionalDerivativeMatchesTheGradient) {
  Trainable s;
  ModelGradients gradient = zero_parameters(s.config);
  const LossSettings settings{.mtp_lambda = 0.3, .alpha = 0.1};
  forward_backward(s.model, s.view(), settings, gradient);
  ModelParameters<Tensor> direction = small_parameters(s.config, 99);
  const auto g = list_parameters(s.config, gradient), d = list_parameters(s.config, direction);
  double slope = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (g[i].spec.role == Role::Bias) continue;
    for (Index j = 0; j < g[i].leaf->size(); ++j)
      slope += double(g[i].leaf->flat()(j)) * d[i].leaf->flat()(j);
  }
  const auto pass_at = [&](double step) {
    ModelParameters<Tensor> moved = small_parameters(s.config);
    const auto m = list_parameters(s.config, moved);
    for (std::size_t i = 0; i < m.size(); ++i) {
      if (m[i].spec.role == Role::Bias) continue;
      for (Index j = 0; j < m[i].leaf->size(); ++j)
        m[i].leaf->flat()(j) += static_cast<float>(step * d[i].leaf->flat()(j));
    }
    const Model model = make_training_model(s.config, moved, Compute::Fp32);
    ModelGradients unused = zero_parameters(s.config);
    return forward_backward(model, s.view(), settings, unused, true);
  };
  // The loss jumps where a token changes its experts, which the gradient rightly ignores: the step
  // is halved until no expert's load, and none of the balance loss's f, differs between both ends.
  for (double h = 1e-3; h > 1e-6; h /= 2) {
    const PassResult up = pass_at(h), down = pass_at(-h);
    bool same_choice = true;
    for (std::size_t i = 0; i < up.moe.size(); ++i)
      same_choice = same_choice && up.moe[i].load == down.moe[i].load &&
                    same_bits(up.moe[i].balance.f, down.moe[i].balance.f);
    if (!same_choice) continue;
    // FP32 rounds a loss of about 10 to 1e-6.
    EXPECT_NEAR((up.total - down.total) / (2 * h), slope, 0.02 * std::abs(slope) + 2e-6 / h);
    return;
  }
  FAIL() << "no step leaves the choice of experts as it is";
}

TEST(TrainingPass, RowsTooShortForTheModulesAreRefused) {
  Trainable s;
  ModelGradients g = zero_parameters(s.config);
  EXPECT_THROW(forward_backward(s.model, s.view().columns(0, 3), {}, g), ShapeError);
  EXPECT_NO_THROW(forward_backward(s.model, s.view().columns(0, 4), {}, g));
}

TEST(TrainingPass, EvaluationGivesTheMainLoss) {
  Trainable s;
  ModelGradients g = zero_parameters(s.config);
  EXPECT_NEAR(evaluate_loss(s.model, s.view()), forward_backward(s.model, s.view(), {}, g).main,
              1e-6);
}

}  // namespace
}  // namespace minke

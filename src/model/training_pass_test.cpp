#include "model/training_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "model/small_model.h"
#include "ops/isa.h"

namespace minke {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// What the gradient takes as given: the experts chosen, by the gate and for the balance loss's f.
bool same_choice(const PassResult& a, const PassResult& b) {
  bool same = true;
  for (std::size_t i = 0; i < a.moe.size(); ++i)
    same =
        same && a.moe[i].load == b.moe[i].load && same_bits(a.moe[i].balance.f, b.moe[i].balance.f);
  return same;
}

struct Trainable {
  ModelConfig config = small_config(2);
  ModelParameters<Tensor> masters = small_parameters(config);
  Model model = make_training_model(config, masters, Compute::Fp32);
  Tensor tokens = random_tokens(4, 18, config.vocab_size, 11);
  View2<const std::int32_t> view() const { return tokens.view<std::int32_t, 2>(); }
};

// Finite weights so large that the sums behind them are not.
TEST(TrainingPass, NamesTheFirstOutputThatIsNotFinite) {
  const auto found = [](auto&& weight_of) -> std::optional<NonFiniteOutput> {
    Trainable s;
    Tensor& w = weight_of(s.masters);
    for (Index i = 0; i < w.size(); ++i) w.flat()(i) = i % 2 ? 3e38f : -3e38f;
    refresh(s.model, s.masters);
    return find_non_finite_output(s.model, s.view());
  };
  using Masters = ModelParameters<Tensor>;
  const auto in_attention =
      found([](Masters& m) -> Tensor& { return m.layers[2].self_attn.o_proj; });
  ASSERT_TRUE(in_attention);
  EXPECT_EQ(in_attention->tensor, "layers.2.attn_out");
  EXPECT_EQ(in_attention->layer, 2);
  const auto in_ffn = found([](Masters& m) -> Tensor& { return m.layers[0].mlp.down_proj; });
  ASSERT_TRUE(in_ffn);
  EXPECT_EQ(in_ffn->tensor, "layers.0.ffn_out");
  EXPECT_EQ(in_ffn->layer, 0);
  const auto in_head = found([](Masters& m) -> Tensor& { return m.lm_head; });
  ASSERT_TRUE(in_head);
  EXPECT_EQ(in_head->tensor, "logits");
  EXPECT_FALSE(in_head->layer);
  Trainable healthy;
  EXPECT_FALSE(find_non_finite_output(healthy.model, healthy.view()));
}

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

// Rows [A B] with attention masked between A and B are A and B alone: rotations are relative, so
// that only rounding differs. MTP modules look ahead across the border and are left out.
TEST(TrainingPass, MaskedDocumentsAreAsRowsOfTheirOwn) {
  const ModelConfig config = small_config(0);
  ModelParameters<Tensor> masters = small_parameters(config);
  const Model model = make_training_model(config, masters, Compute::Fp32);
  const Index first = 5, T = 17;
  const Tensor tokens = random_tokens(2, T + 1, config.vocab_size, 11);
  const auto rows = tokens.view<std::int32_t, 2>();
  const std::vector<std::vector<Index>> starts{{0, first}, {0}};
  ModelGradients masked = zero_parameters(config), unmasked = zero_parameters(config),
                 apart = zero_parameters(config);
  const double loss = forward_backward(model, rows, {.alpha = 0, .starts = starts}, masked).main;
  const double whole = forward_backward(model, rows, {.alpha = 0}, unmasked).main;
  EXPECT_GT(std::fabs(loss - whole), 1e-4);
  EXPECT_NEAR(evaluate_loss(model, rows, starts), loss, 1e-6 * loss);

  double sum = forward_backward(model, rows.rows(1, 1), {.alpha = 0, .share = 0.5}, apart).main;
  for (const auto& [begin, end] : {std::pair<Index, Index>{0, first}, {first, T}}) {
    const double share = static_cast<double>(end - begin) / static_cast<double>(2 * T);
    sum += forward_backward(model, rows.rows(0, 1).columns(begin, end - begin + 1),
                            {.alpha = 0, .share = share}, apart)
               .main;
  }
  EXPECT_NEAR(sum, loss, 1e-6 * loss);
  const auto a = list_parameters(config, masked), b = list_parameters(config, apart);
  for (std::size_t i = 0; i < a.size(); ++i) {
    float largest = 0;
    for (Index j = 0; j < a[i].leaf->size(); ++j)
      largest = std::max(largest, std::fabs(a[i].leaf->flat()(j)));
    for (Index j = 0; j < a[i].leaf->size(); ++j)
      ASSERT_NEAR(b[i].leaf->flat()(j), a[i].leaf->flat()(j), 2e-5f * largest) << a[i].spec.name;
  }
}

// An MTP module does not attend across the border either: what its losses lose when a token of A
// changes is what they lose in a row that ends two tokens into B, which it predicts from A.
TEST(TrainingPass, MtpModulesAttendWithinDocuments) {
  Trainable s;
  s.config = small_config(1);
  s.masters = small_parameters(s.config);
  s.model = make_training_model(s.config, s.masters, Compute::Fp32);
  const Index first = 5, T = 17;
  const std::vector<std::vector<Index>> starts{{0, first}};
  ModelGradients unused = zero_parameters(s.config);
  const auto nats = [&](View2<const std::int32_t> row, DocumentStarts where) {
    const LossSettings settings{.alpha = 0, .starts = where};
    return forward_backward(s.model, row, settings, unused).mtp_k[0] *
           static_cast<double>(row.extent(1) - 1);
  };
  Tensor other = s.tokens.clone();
  const auto one = s.view().rows(0, 1),
             two = std::as_const(other).view<std::int32_t, 2>().rows(0, 1);
  auto* id = static_cast<std::int32_t*>(other.raw());
  *id = *id == 0 ? 1 : 0;
  const double within = nats(one.columns(0, first + 2), {}) - nats(two.columns(0, first + 2), {});
  EXPECT_GT(std::fabs(within), 1e-2);
  EXPECT_NEAR(nats(one.columns(0, T + 1), starts) - nats(two.columns(0, T + 1), starts), within,
              1e-4);
  EXPECT_GT(std::fabs(nats(one.columns(0, T + 1), {}) - nats(two.columns(0, T + 1), {}) - within),
            1e-3);
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

// What linears read may as well be rounded when it is made.
TEST(TrainingPass, OperandsInBf16GiveTheBitsOfProductsThatRoundThem) {
  for (const bool recompute : {false, true})
    for (Isa isa : available_isas()) {
      choose_isa(isa);
      Trainable s;
      TrainingForm form;
      form.recompute = {recompute, recompute, recompute};
      Model model = make_training_model(s.config, s.masters, Compute::Bf16, form);
      EXPECT_TRUE(model.narrow_operands);
      PassResult results[2];
      ModelGradients gradients[2] = {zero_parameters(s.config), zero_parameters(s.config)};
      for (const bool narrow : {false, true}) {
        model.narrow_operands = narrow;
        results[narrow] = forward_backward(model, s.view(), {.alpha = 0.01}, gradients[narrow]);
      }
      EXPECT_EQ(results[0].total, results[1].total);
      const auto a = list_parameters(s.config, gradients[0]);
      const auto b = list_parameters(s.config, gradients[1]);
      for (std::size_t i = 0; i < a.size(); ++i)
        EXPECT_TRUE(same_bits(*a[i].leaf, *b[i].leaf)) << name_of(isa) << " " << a[i].spec.name;
    }
  choose_isa(available_isas().back());
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
    if (!same_choice(up, down)) continue;
    // FP32 rounds a loss of about 10 to 1e-6.
    EXPECT_NEAR((up.total - down.total) / (2 * h), slope, 0.02 * std::abs(slope) + 2e-6 / h);
    return;
  }
  FAIL() << "no step leaves the choice of experts as it is";
}

// A double model whose masters are those of `small_parameters`.
struct DoubleTrainable {
  explicit DoubleTrainable(const ModelConfig& c) : config(c) {
    ModelParameters<Tensor> narrow = small_parameters(c);
    masters = widened(c, narrow);
    model = make_double_model(c, masters);
  }
  PassResult pass(View2<const std::int32_t> tokens, const LossSettings& settings,
                  ModelGradients& gradients) const {
    return forward_backward(model, tokens, settings, gradients, true);
  }
  ModelConfig config;
  ModelParameters<Tensor> masters;
  ModelOf<double> model;
};

// Compressed queries or not, groups, a shared expert, an MTP module, a balance loss that counts.
class DoubleGradient : public testing::TestWithParam<bool> {};

// Every tensor by itself, along a direction that moves all of its elements, against differences of
// the total loss.
TEST_P(DoubleGradient, OfEveryTensorMatchesDifferencesOfTheLoss) {
  ModelConfig c = small_config(1);
  c.num_hidden_layers = 2;
  c.n_routed_experts = 4;
  c.n_group = 2;
  c.topk_group = 1;
  c.num_experts_per_tok = 2;
  if (!GetParam()) c.q_lora_rank.reset();
  c.check("test");
  DoubleTrainable s(c);
  const Tensor ids = random_tokens(2, 8, c.vocab_size, 5);
  const View2<const std::int32_t> tokens = ids.view<std::int32_t, 2>();
  const LossSettings settings{.mtp_lambda = 0.3, .alpha = 0.5};
  ModelGradients gradients = zero_parameters(c, DType::F64);
  const PassResult here = s.pass(tokens, settings, gradients);
  ASSERT_GT(here.balance, 0.1);

  ModelGradients unused = zero_parameters(c, DType::F64);
  const auto weights = list_parameters(c, s.masters), slopes = list_parameters(c, gradients);
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].spec.role == Role::Bias) continue;
    const View1<double> w = weights[i].leaf->flat<double>(), g = slopes[i].leaf->flat<double>();
    const Tensor kept = weights[i].leaf->clone();
    Random random(++seed);
    std::vector<double> direction(static_cast<std::size_t>(w.size()));
    double slope = 0;
    for (Index j = 0; j < w.size(); ++j) {
      double& d = direction[static_cast<std::size_t>(j)];
      d = random.normal() / std::sqrt(static_cast<double>(w.size()));
      slope += d * g(j);
    }
    const auto pass_at = [&](double step) {
      for (Index j = 0; j < w.size(); ++j)
        w(j) = kept.flat<double>()(j) + step * direction[static_cast<std::size_t>(j)];
      refresh(s.model, s.masters);
      return s.pass(tokens, settings, unused);
    };
    // Five points: what is left out is h^4/30 of the fifth derivative along the direction, below
    // 1e-9 unless that is above 3e8. Rounding: a loss of about 10 has an error of some 1e-15 times
    // the root of the terms summed, over h: below 1e-9 as well.
    double difference = 0, h = 1e-4;
    for (; h > 1e-6; h /= 2) {
      const PassResult up = pass_at(h), up2 = pass_at(2 * h), down = pass_at(-h),
                       down2 = pass_at(-2 * h);
      difference = (8 * (up.total - down.total) - (up2.total - down2.total)) / (12 * h);
      if (same_choice(here, up2) && same_choice(here, down2)) break;
    }
    ASSERT_GT(h, 1e-6) << "no step leaves the choice of experts as it is";
    EXPECT_NEAR(difference, slope, 2e-9 * (1 + std::abs(slope))) << weights[i].spec.name;
    pass_at(0);
  }
}

INSTANTIATE_TEST_SUITE_P(Queries, DoubleGradient, testing::Bool(),
                         [](const auto& info) { return info.param ? "compressed" : "direct"; });

// Both are one code: what differs are roundings, within what tests/golden/README.md allows FP32.
TEST(TrainingPass, SinglePrecisionIsNearDoubleOnEveryInstructionSet) {
  const ModelConfig c = small_config(2);
  const DoubleTrainable exact(c);
  const Tensor ids = random_tokens(3, 18, c.vocab_size, 11);
  const View2<const std::int32_t> tokens = ids.view<std::int32_t, 2>();
  ModelGradients want = zero_parameters(c, DType::F64);
  const PassResult b = exact.pass(tokens, {.alpha = 0.01}, want);
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(std::string(name_of(isa)));
    choose_isa(isa);
    ModelParameters<Tensor> masters = small_parameters(c);
    const Model model = make_training_model(c, masters, Compute::Fp32);
    ModelGradients have = zero_parameters(c);
    const PassResult a = forward_backward(model, tokens, {.alpha = 0.01}, have, true);
    EXPECT_TRUE(same_choice(a, b));
    EXPECT_NEAR(a.main, b.main, 2e-6 * b.main);
    EXPECT_NEAR(a.mtp, b.mtp, 2e-6 * b.mtp);
    EXPECT_NEAR(a.balance, b.balance, 2e-6 * b.balance);
    const auto g = list_parameters(c, have), exact_g = list_parameters(c, want);
    for (std::size_t i = 0; i < g.size(); ++i) {
      const View1<double> y = exact_g[i].leaf->flat<double>();
      double largest = 0;
      for (Index j = 0; j < y.size(); ++j) largest = std::max(largest, std::abs(y(j)));
      for (Index j = 0; j < y.size(); ++j)
        ASSERT_NEAR(g[i].leaf->flat()(j), y(j), 2e-5 * largest)
            << g[i].spec.name << "[" << j << "]";
    }
  }
  choose_isa(available_isas().back());
}

TEST(TrainingPass, DoubleHasTheSameBitsOnAnyNumberOfThreads) {
  const ModelConfig c = small_config(2);
  const DoubleTrainable s(c);
  const Tensor ids = random_tokens(3, 18, c.vocab_size, 11);
  set_threads(1);
  ModelGradients one = zero_parameters(c, DType::F64), more = zero_parameters(c, DType::F64);
  const PassResult first = s.pass(ids.view<std::int32_t, 2>(), {}, one);
  set_threads(3);
  EXPECT_EQ(s.pass(ids.view<std::int32_t, 2>(), {}, more).total, first.total);
  set_threads(available_cores());
  const auto a = list_parameters(c, one), b = list_parameters(c, more);
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(same_bits(*a[i].leaf, *b[i].leaf)) << a[i].spec.name;
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

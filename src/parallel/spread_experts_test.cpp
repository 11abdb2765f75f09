// The whole training pass with the routed experts of every layer spread over ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/test_directory.h"
#include "model/checkpoint.h"
#include "model/small_model.h"
#include "model/training_pass.h"
#include "parallel/expert_exchange.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

ModelParameters<Tensor> held_parameters(const ModelConfig& held) {
  const ModelConfig whole = held.whole();
  ModelParameters<Tensor> all = small_parameters(whole), part = zero_parameters(held);
  std::map<std::string, Tensor*> by_name;
  visit_parameters(whole, all, [&](const ParameterSpec& s, Tensor& t) { by_name[s.name] = &t; });
  visit_parameters(held, part,
                   [&](const ParameterSpec& s, Tensor& t) { t = by_name.at(s.name)->clone(); });
  return part;
}

// One micro-batch of each rank, as one rank computes it: its gradient into zeroed buffers.
struct MicroBatch {
  PassResult result;
  ModelGradients gradients;
};

const LossSettings kSettings{.alpha = 0.01, .share = 0.25};

Tensor tokens_of(const ModelConfig& c, int rank) {
  return random_tokens(2, 9, c.vocab_size, 20 + static_cast<std::uint64_t>(rank));
}

MicroBatch on_one_rank(const ModelConfig& c, Compute compute, int micro_batch) {
  ModelParameters<Tensor> masters = small_parameters(c);
  const Model model = make_training_model(c, masters, compute);
  const Tensor tokens = tokens_of(c, micro_batch);
  MicroBatch m{{}, zero_parameters(c)};
  m.result = forward_backward(model, tokens.view<std::int32_t, 2>(), kSettings, m.gradients);
  return m;
}

struct SpreadModel {
  SpreadModel(Communicator& ranks, ModelConfig c, Compute compute, const ExchangeForm& form)
      : group(ranks, c.n_routed_experts, form), config(std::move(c)) {
    config.held_experts = group.held();
    ModelParameters<Tensor> masters = held_parameters(config);
    model = make_training_model(config, masters, compute);
    model.make_dispatch = exchange_over(group);
  }
  ExpertGroup group;
  ModelConfig config;
  Model model;
};

void expect_bits_of_one_rank(const ModelConfig& c, Compute compute, int n_ranks,
                             const ThreadRanks& threads) {
  std::vector<MicroBatch> want;
  for (int m = 0; m < n_ranks; ++m) want.push_back(on_one_rank(c, compute, m));
  run_ranks(
      n_ranks,
      [&](Communicator& ranks) {
        SpreadModel spread(ranks, c, compute, {});
        const Tensor tokens = tokens_of(c, ranks.rank());
        ModelGradients gradients = zero_gradients_by_source(spread.config, n_ranks);
        const PassResult have =
            forward_backward(spread.model, tokens.view<std::int32_t, 2>(), kSettings, gradients);
        MicroBatch& own = want[static_cast<std::size_t>(ranks.rank())];
        EXPECT_EQ(have.total, own.result.total);
        EXPECT_EQ(have.mtp, own.result.mtp);
        EXPECT_EQ(have.balance, own.result.balance);
        std::vector<std::map<std::string, const Tensor*>> of(want.size());
        for (std::size_t m = 0; m < want.size(); ++m)
          for (const auto& [spec, leaf] : list_parameters(c, want[m].gradients))
            of[m][spec.name] = leaf;
        for (const auto& [spec, leaf] : list_parameters(spread.config, gradients)) {
          const std::size_t first =
              is_routed_expert(spec) ? 0 : static_cast<std::size_t>(ranks.rank());
          const std::size_t n = is_routed_expert(spec) ? want.size() : 1;
          const auto* bytes = static_cast<const std::byte*>(leaf->raw());
          for (std::size_t m = first; m < first + n; ++m) {
            const Tensor& g = *of[m].at(spec.name);
            ASSERT_EQ(leaf->bytes(), n * g.bytes()) << spec.name;
            EXPECT_EQ(0, std::memcmp(bytes + (m - first) * g.bytes(), g.raw(), g.bytes()))
                << spec.name << " of micro-batch " << m;
          }
        }
      },
      threads);
}

TEST(SpreadExperts, ThreadsHaveTheLossesAndGradientsOfOneRankInFp32) {
  const ModelConfig c = small_config(2);
  expect_bits_of_one_rank(c, Compute::Fp32, 2, {});
  expect_bits_of_one_rank(c, Compute::Fp32, 4, {.ranks_per_host = 2, .rendezvous = true});
}

// Codes travel as they are.
TEST(SpreadExperts, ThreadsHaveTheLossesAndGradientsOfOneRankInFp8) {
  expect_bits_of_one_rank(small_config(1), Compute::Fp8, 4, {});
}

// Every expert is chosen: where rounding turns a choice, losses jump. FP8 rows are allowed what
// model/fp8_training_test.cpp derives for FP8 products, 2 % of the loss and a cosine of 0.91 (noise
// 0.45, of ten products a block in a row); BF16 rounds to 2^-9 instead of 2^-4, so 1/32 of both,
// and attention's own products as well: scores and values forward, their two gradients backward, so
// that fourteen instead of ten are in a row. All ranks have the same tokens, so that the sums over
// sources have the direction of one rank's gradients.
TEST(SpreadExperts, ThreadsWithRoundedRowsStayNearOneRank) {
  ModelConfig c = small_config(1);
  c.num_experts_per_tok = c.n_routed_experts;
  c.topk_group = c.n_group;
  c.initializer_range = 0.1;
  const struct {
    Compute compute;
    ExchangeForm form;
    double rounding;  // as a part of that of FP8
    double products;  // of a block in a row
  } cases[] = {{Compute::Bf16, kBf16Exchange, 1.0 / 32, 14}, {Compute::Fp8, kFp8Exchange, 1, 10}};
  for (const auto& [compute, form, rounding, products] : cases) {
    MicroBatch want = on_one_rank(c, compute, 0);
    std::map<std::string, const Tensor*> of;
    for (const auto& [spec, leaf] : list_parameters(c, want.gradients)) of[spec.name] = leaf;
    const double noise = 0.45 * rounding * std::sqrt(products / 10);
    run_ranks(4,
              [&, compute = compute, form = form, rounding = rounding](Communicator& ranks) {
                SpreadModel spread(ranks, c, compute, form);
                const Tensor tokens = tokens_of(c, 0);
                ModelGradients gradients = zero_parameters(spread.config);
                const PassResult have = forward_backward(
                    spread.model, tokens.view<std::int32_t, 2>(), kSettings, gradients);
                EXPECT_NEAR(have.total, want.result.total, 0.02 * rounding * want.result.total);
                EXPECT_NE(have.total, want.result.total);
                for (const auto& [spec, leaf] : list_parameters(spread.config, gradients)) {
                  if (spec.role == Role::Bias) continue;
                  EXPECT_GT(cosine(*leaf, *of.at(spec.name)), 1 / std::sqrt(1 + noise * noise))
                      << spec.name;
                }
              },
              {.ranks_per_host = 2});
  }
}

struct SpreadExpertsOnDisk : TestDirectory {};

TEST_F(SpreadExpertsOnDisk, OnlyHeldTensorsAreReadAndTheyAreThoseOfTheWholeModel) {
  const ModelConfig c = small_config(1);
  ModelParameters<Tensor> all = small_parameters(c);
  save_model(dir, c, all, SaveDType::F32);
  ModelConfig held = c;
  const ExpertRange range{2, 4};
  const auto holding = [](ExpertRange experts) {
    return [experts](ModelConfig& config) { config.held_experts = experts; };
  };
  ModelParameters<Tensor> masters = load_masters(dir, held, holding(range));
  EXPECT_EQ(held.held_experts, range);
  ModelConfig expected = c;
  expected.held_experts = range;
  ModelParameters<Tensor> want = held_parameters(expected);
  const auto a = list_parameters(held, masters), b = list_parameters(expected, want);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].spec.name, b[i].spec.name);
    EXPECT_EQ(0, std::memcmp(a[i].leaf->raw(), b[i].leaf->raw(), b[i].leaf->bytes()));
  }
  std::uint64_t done = 0, total = 0;
  const Model model = load_model(dir, {.held_experts = range, .progress = [&](auto d, auto t) {
                                         done = d;
                                         total = t;
                                       }});
  EXPECT_EQ(model.weights.layers[1].moe.experts.size(), 2u);
  EXPECT_EQ(done, total);
  const std::string error = error_of([&] { (void)load_masters(dir, held, holding({6, 9})); });
  EXPECT_HOLDS(error, "routed experts 6 to 8 cannot be held; n_routed_experts is 8");
}

TEST(SpreadExperts, CountsAreOfWhatIsHeld) {
  ModelConfig c = small_config(0), half = c;
  half.held_experts = ExpertRange{4, 8};
  const ParameterCount all = count_parameters(c), part = count_parameters(half);
  const Index expert = 3 * c.hidden_size * c.moe_intermediate_size, layers = 2;
  EXPECT_EQ(all.total - part.total, layers * 4 * expert);
  EXPECT_EQ(all.active - part.active, layers * expert * c.num_experts_per_tok / 2);
}

}  // namespace
}  // namespace minke

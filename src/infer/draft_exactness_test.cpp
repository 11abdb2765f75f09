// Drafts do not change what is sampled: all two-token continuations of a small vocabulary, counted
// against their probabilities.
//
// The disabled test is the same with a million continuations; tests/draft_exactness.sh runs it.
#include <algorithm>
#include <cmath>

#include "infer/test_bench.h"

namespace minke {
namespace {

constexpr Index kVocabulary = 32;
const Ids kPrompt{3, 17, 8, 25, 1};

const Model& small_vocabulary() {
  static const Model model = [] {
    ModelConfig c = small_config(1);
    c.vocab_size = kVocabulary;
    c.num_hidden_layers = 2;
    return small_engine_model(Compute::Fp32, 1, c);
  }();
  return model;
}

// p[a V + b] of the continuation a, b by the model itself.
std::vector<double> probabilities() {
  const Model& model = small_vocabulary();
  const auto softmax = [](const Tensor& logits) {
    std::vector<double> p;
    double sum = 0;
    for (Index v = 0; v < logits.size(); ++v) {
      p.push_back(std::exp(static_cast<double>(logits.flat()(v))));
      sum += p.back();
    }
    for (double& x : p) x /= sum;
    return p;
  };
  Sequence sequence(model);
  const std::vector<double> first =
      softmax(sequence.extend(model, kPrompt, AttentionForm::Expanded, true));
  std::vector<double> joint;
  for (std::int32_t a = 0; a < kVocabulary; ++a) {
    sequence.rewind_to(kPrompt);
    sequence.extend(model, std::span(kPrompt).last(1), AttentionForm::Expanded, false);
    for (const double p : softmax(sequence.extend(model, {&a, 1}, AttentionForm::Absorbed, true)))
      joint.push_back(first[static_cast<std::size_t>(a)] * p);
  }
  return joint;
}

struct Counts {
  std::vector<double> cells = std::vector<double>(kVocabulary * kVocabulary);
  double n = 0;
  std::uint64_t drafted = 0, accepted = 0;
};

// Three tokens each, so that the second is checked against a draft.
Counts sample(Index n, std::uint64_t seed, Drafting drafting, AcceptanceRule rule) {
  struct Counter : RequestSink {
    Counts& counts;
    std::int32_t first = -1, n = 0;
    explicit Counter(Counts& c) : counts(c) {}
    void on_prompt(std::vector<ScoredToken>) override {}
    bool on_token(Index, ScoredToken token) override {
      if (++n == 1) first = token.id;
      if (n == 2) ++counts.cells[static_cast<std::size_t>(first * kVocabulary + token.id)];
      return true;
    }
    void on_finish(Index, FinishReason) override {}
    void on_done(const RequestUsage&) override { ++counts.n; }
  };
  Counts counts;
  TestBench bench(small_vocabulary(), {.max_batch = 64, .drafting = drafting}, rule);
  for (Index i = 0; i < n; ++i) {
    const SamplerSettings sampler{.seed = seed * 1'000'000'007 + static_cast<std::uint64_t>(i)};
    bench.add(request_of(kPrompt, 3, sampler), std::make_shared<Counter>(counts));
    if (i % 64 == 63) bench.run();
  }
  bench.run();
  counts.drafted = bench.loop.statistics().drafted;
  counts.accepted = bench.loop.statistics().accepted;
  return counts;
}

// The probability of a chi-square as large as this one, by Wilson and Hilferty's cube root: good to
// a few per cent of itself for the hundreds of cells here.
double p_value(const Counts& counts, const std::vector<double>& expected) {
  struct Cell {
    double expected, seen;
  };
  std::vector<Cell> cells;
  Cell rare{0, 0};  // those under 5, together
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Cell cell{expected[i] * counts.n, counts.cells[i]};
    if (cell.expected >= 5) {
      cells.push_back(cell);
    } else {
      rare.expected += cell.expected;
      rare.seen += cell.seen;
    }
  }
  if (rare.expected > 0) cells.push_back(rare);
  double chi_square = 0;
  for (const Cell& c : cells)
    chi_square += (c.seen - c.expected) * (c.seen - c.expected) / c.expected;
  const double k = static_cast<double>(cells.size()) - 1, spread = 2 / (9 * k);
  const double z = (std::cbrt(chi_square / k) - (1 - spread)) / std::sqrt(spread);
  return std::erfc(z / std::sqrt(2.)) / 2;
}

bool accept_all(std::int32_t, std::int32_t) {
  return true;
}

void expect_exact(Index n) {
  const std::vector<double> expected = probabilities();
  for (std::uint64_t seed = 1; seed <= 5; ++seed)
    for (const Drafting drafting : {Drafting::Off, Drafting::Always}) {
      const Counts counts = sample(n, seed, drafting, accept_equal);
      ASSERT_EQ(counts.n, static_cast<double>(n));
      EXPECT_GT(p_value(counts, expected), 0.001)
          << "seed " << seed << (drafting == Drafting::Off ? " without" : " with") << " drafts";
      EXPECT_EQ(counts.drafted > 0, drafting == Drafting::Always);
    }
}

TEST(DraftExactness, SampledContinuationsFollowTheModelWithAndWithoutDrafts) {
  expect_exact(2'500);
}

TEST(DraftExactness, DISABLED_OfAMillionContinuations) {
  expect_exact(1'000'000 / 5);
}

TEST(DraftExactness, AWrongRuleOfAcceptanceIsNoticed) {
  const std::vector<double> expected = probabilities();
  for (std::uint64_t seed = 1; seed <= 5; ++seed)
    EXPECT_LT(p_value(sample(1'000, seed, Drafting::Always, accept_all), expected), 1e-6);
}

// One random number for both draws: far more drafts are right than if they were independent.
TEST(DraftExactness, CoupledDrawsAgreeMoreOftenThanIndependentOnes) {
  const Counts counts = sample(2'000, 9, Drafting::Always, accept_equal);
  EXPECT_GT(static_cast<double>(counts.accepted),
            2. / kVocabulary * static_cast<double>(counts.drafted));
}

}  // namespace
}  // namespace minke

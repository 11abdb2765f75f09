#include "eval/token_scorer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/threads.h"
#include "io/safetensors.h"
#include "model/cached_forward.h"
#include "model/checkpoint.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

const Model& model() {
  static const Model m =
      load_model(std::filesystem::path(MINKE_GOLDEN_DIR) / "tiny-bf16", {.compute = Compute::Fp32});
  return m;
}

Ids some_tokens(Index n, std::int32_t seed) {
  Ids ids;
  for (Index i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>((seed + 37 * i + i * i) % model().config.vocab_size));
  return ids;
}

// -ln p(target | context), through the other attention form and sums in double.
double direct(const Ids& context, std::int32_t target) {
  SequenceCache cache(model().config, DType::F32);
  cache.reserve(static_cast<Index>(context.size()));
  const Segment segment{&cache, static_cast<Index>(context.size()), AttentionForm::Absorbed};
  const Tensor h = cached_forward(model(), context, {&segment, 1});
  const Tensor logits = output_logits(model(), h.v2().rows(h.extent(0) - 1, 1));
  double largest = -1e300, sum = 0;
  for (Index v = 0; v < logits.size(); ++v) largest = std::max<double>(largest, logits.flat()(v));
  for (Index v = 0; v < logits.size(); ++v) sum += std::exp(logits.flat()(v) - largest);
  return largest + std::log(sum) - logits.flat()(target);
}

TEST(Windows, EveryTokenIsScoredOnceWithItsContext) {
  for (const Index window : {1, 2, 3, 8, 9})
    for (Index stride = 1; stride <= window; ++stride)
      for (Index n = 0; n <= 40; ++n) {
        Index next = 1;
        for (const Window& w : plan_windows(n, {window, stride})) {
          EXPECT_EQ(w.first_target, next);
          EXPECT_GE(w.n_targets(), 1);
          EXPECT_GE(w.begin, 0);
          EXPECT_LE(w.end - w.begin, window);
          const Index context = w.first_target - w.begin;
          EXPECT_GE(context, w.begin > 0 ? window - stride : 1);
          next = w.end + 1;
        }
        EXPECT_EQ(next, std::max<Index>(n, 1)) << window << " " << stride << " " << n;
      }
}

TEST(Windows, EndsLieAStrideApart) {
  const std::vector<Window> expected{{0, 8, 1}, {4, 12, 9}, {7, 15, 13}};
  EXPECT_EQ(plan_windows(16, {8, 4}), expected);
}

TEST(Windows, SettingsOutOfRangeAreNamed) {
  const Index context = model().config.max_position_embeddings;
  EXPECT_NO_THROW((WindowSettings{context, context}.check(model().config)));
  for (const WindowSettings& bad :
       {WindowSettings{context + 1, 1}, {0, 1}, {8, 0}, {8, 9}, {-1, -1}})
    EXPECT_THROW(bad.check(model().config), ConfigError);
}

TEST(TokenScorer, EqualsADirectComputation) {
  const WindowSettings settings{8, 3};
  const Ids texts[] = {some_tokens(21, 5), some_tokens(1, 1), some_tokens(9, 80), {}};
  TokenScorer scorer(model(), settings, 20);
  for (std::size_t i = 0; i < 4; ++i) scorer.add(texts[i], i);
  scorer.flush();
  for (std::size_t i = 0; i < 4; ++i) {
    double expected = 0;
    Index tokens = 0;
    for (const Window& w : plan_windows(static_cast<Index>(texts[i].size()), settings))
      for (Index t = w.first_target; t <= w.end; ++t, ++tokens)
        expected += direct({texts[i].begin() + w.begin, texts[i].begin() + t},
                           texts[i][static_cast<std::size_t>(t)]);
    EXPECT_EQ(scorer.sum(i).tokens, tokens);
    EXPECT_NEAR(scorer.sum(i).nats, expected, 5e-5 * static_cast<double>(tokens));
  }
}

TEST(TokenScorer, BatchesAndThreadsDoNotChangeTheSum) {
  const int before = n_threads();
  const auto score = [&](Index batch_tokens, int threads) {
    set_threads(threads);
    TokenScorer scorer(model(), {16, 8}, batch_tokens);
    for (std::int32_t i = 0; i < 5; ++i) scorer.add(some_tokens(11 + 9 * i, i), 0);
    scorer.flush();
    return scorer.sum(0).nats;
  };
  const double expected = score(1, 1);
  EXPECT_EQ(score(40, 1), expected);
  EXPECT_EQ(score(100000, 2), expected);
  set_threads(before);
}

TEST(TokenScorer, ReportsAndCanBeEnded) {
  TokenScorer scorer(model(), {8, 8}, 8);
  std::vector<Index> seen;
  scorer.on_batch = [&](Index scored) {
    seen.push_back(scored);
    if (scored >= 16) throw Interrupted("stopped");
  };
  EXPECT_THROW(scorer.add(some_tokens(100, 0), 0), Interrupted);
  EXPECT_EQ(seen, (std::vector<Index>{8, 16}));
}

TEST(TokenScorer, RefusesTokensOutsideTheVocabulary) {
  TokenScorer scorer(model(), {8, 8}, 8);
  EXPECT_THROW(scorer.add({1, static_cast<std::int32_t>(model().config.vocab_size)}, 0),
               ConfigError);
  EXPECT_THROW(scorer.add({-1}, 0), ConfigError);
}

class TokenScorerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenScorerGolden, MeanLossOfTheGoldenTokens) {
  const auto dir = std::filesystem::path(MINKE_GOLDEN_DIR) / GetParam();
  const auto file = SafetensorsFile::open(dir / "expected.safetensors");
  const auto view = file.view<std::int64_t, 2>("tokens");
  std::ifstream in(dir / "expected.json");
  const double expected = nlohmann::json::parse(in).at("mean_nll").get<double>();
  const Model m = load_model(dir, {.compute = Compute::Fp32});
  TokenScorer scorer(m, {view.extent(1), view.extent(1)}, 64);
  for (Index b = 0; b < view.extent(0); ++b) {
    Ids ids;
    for (Index t = 0; t < view.extent(1); ++t) ids.push_back(static_cast<std::int32_t>(view(b, t)));
    scorer.add(ids, 0);
  }
  scorer.flush();
  EXPECT_NEAR(scorer.sum(0).nats / static_cast<double>(scorer.sum(0).tokens), expected, 5e-5);
}

INSTANTIATE_TEST_SUITE_P(Golden, TokenScorerGolden,
                         testing::Values("tiny-bf16", "tiny-yarn", "tiny-grouped", "tiny-fp8",
                                         "tiny-noqlora", "tiny-mtp"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[4] = '_';
                           return name;
                         });

}  // namespace
}  // namespace minke

#include "eval/bits_per_byte.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "eval/byte_tokenizer_test.h"
#include "model/cached_forward.h"
#include "text/utf8.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

const Model& model() {
  static const Model m = [] {
    ModelConfig c = ModelConfig::load(std::filesystem::path(MINKE_GOLDEN_DIR) / "tiny-noqlora");
    c.vocab_size = 258;
    c.initializer_range = 0.3;
    c.num_nextn_predict_layers = 0;
    ModelParameters<Tensor> masters = initial_parameters(c, 7);
    return make_training_model(c, masters, Compute::Fp32);
  }();
  return m;
}

// The nats of ids[1..] in one pass without windows.
double direct(const Ids& ids) {
  if (ids.size() < 2) return 0;
  SequenceCache cache(model().config, DType::F32);
  const Index n = static_cast<Index>(ids.size());
  cache.reserve(n);
  const Segment segment{&cache, n, AttentionForm::Expanded};
  const Tensor logits = output_logits(model(), cached_forward(model(), ids, {&segment, 1}).v2());
  double nats = 0;
  for (Index t = 0; t + 1 < n; ++t) {
    double sum = 0;
    for (Index v = 0; v < 258; ++v) sum += std::exp(static_cast<double>(logits.v2()(t, v)));
    nats += std::log(sum) - logits.v2()(t, ids[static_cast<std::size_t>(t) + 1]);
  }
  return nats;
}

TEST(BitsPerByte, SumsPerSourceAndOverall) {
  const Tokenizer tokenizer = byte_tokenizer(true);
  TextScorer scorer(model(), tokenizer, {64, 32}, 50);
  scorer.add("the cat", "prose");
  scorer.add("春眠", "verse");
  scorer.add("", "prose");
  scorer.add("that <bos>", "prose");
  const TextScores scores = scorer.finish();

  ASSERT_EQ(scores.sources.size(), 2u);
  const auto nats = [&](std::string_view text) {
    Ids ids = tokenizer.encode(text, SpecialTokens::Ignore);
    ids.insert(ids.begin(), kBos);
    return direct(ids);
  };
  const auto& [prose, p] = scores.sources[0];
  EXPECT_EQ(prose, "prose");
  EXPECT_EQ(p.documents, 3);
  EXPECT_EQ(p.bytes, 17);
  EXPECT_EQ(p.tokens, 15);  // "th" twice
  EXPECT_NEAR(p.nats, nats("the cat") + nats("that <bos>"), 1e-3);
  EXPECT_NEAR(p.loss(), p.nats / 15, 1e-12);
  EXPECT_NEAR(p.perplexity(), std::exp(p.nats / 15), 1e-9 * p.perplexity());
  EXPECT_NEAR(p.bits_per_byte(), p.nats / std::numbers::ln2 / 17, 1e-12);
  const auto& [verse, v] = scores.sources[1];
  EXPECT_EQ(verse, "verse");
  EXPECT_EQ(v.bytes, 6);
  EXPECT_NEAR(v.nats, nats("春眠"), 1e-3);
  EXPECT_EQ(scores.overall.bytes, 23);
  EXPECT_EQ(scores.overall.documents, 4);
  EXPECT_DOUBLE_EQ(scores.overall.nats, p.nats + v.nats);
}

TEST(BitsPerByte, WithoutBeginOfSentenceTheFirstTokenDoesNotCount) {
  const Tokenizer tokenizer = byte_tokenizer(false);
  TextScorer scorer(model(), tokenizer, {64, 32}, 50);
  scorer.add("then", "a");
  scorer.add("", "a");
  scorer.add("x", "a");
  const TextScore score = scorer.finish().overall;
  EXPECT_EQ(score.tokens, 2);
  EXPECT_EQ(score.bytes, 2);
  EXPECT_NEAR(score.nats, direct(tokenizer.encode("then")), 1e-3);
}

TEST(BitsPerByte, ReportsProgressInBytesAndRefusesWhatIsNoText) {
  const Tokenizer tokenizer = byte_tokenizer(true);
  TextScorer scorer(model(), tokenizer, {8, 8}, 8);
  std::vector<std::int64_t> seen;
  scorer.on_progress = [&](std::int64_t bytes) { seen.push_back(bytes); };
  scorer.add(std::string(32, 'x'), "a");
  EXPECT_THROW(scorer.add("\xff", "a"), FormatError);
  scorer.finish();
  EXPECT_EQ(seen, (std::vector<std::int64_t>{8, 16, 24, 32}));
}

TEST(BitsPerByte, NothingScoredIsNotANumber) {
  EXPECT_TRUE(std::isnan(TextScore{}.loss()));
  EXPECT_TRUE(std::isnan(TextScore{}.bits_per_byte()));
}

}  // namespace
}  // namespace minke

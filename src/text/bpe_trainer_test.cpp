#include "text/bpe_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/error.h"
#include "base/threads.h"
#include "text/byte_level.h"
#include "text/chat_template.h"
#include "text/golden_tokenizer_test.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

TrainedTokenizer train(const std::vector<std::string>& texts, BpeTrainOptions options = {}) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  return train_bpe(views, options);
}

std::vector<std::string> random_texts(int n, unsigned seed) {
  std::mt19937 random(seed);
  const std::vector<std::string> parts = {"the ", "then ", "the", "re",   " 12",
                                          "345",  "你好",  "，",  "aaaa", "abab",
                                          "\n\n", " a",    "!",   "é",    "<|EOT|>"};
  std::vector<std::string> texts(n);
  for (std::string& text : texts)
    for (int i = random() % 60; i > 0; --i) text += parts[random() % parts.size()];
  return texts;
}

TEST(BpeTrainer, JoinsTheMostFrequentPairFirst) {
  const TrainedTokenizer t = train({"abab abab abx"}, {least_vocab_size() + 3, 2});
  // ab stands 5 times; then ab ab and " " ab twice each, and " " has the lower id.
  ASSERT_GE(t.merges.size(), 2u);
  EXPECT_EQ(t.vocab[t.merges[0].joined], "ab");
  EXPECT_EQ(t.vocab[t.merges[1].joined], "Ġab");
  EXPECT_EQ(t.tokenizer().decode(t.tokenizer().encode("abab abx")), "abab abx");
}

// Counting everything again before each merge gives the same merges.
TEST(BpeTrainer, CountsStayTrue) {
  const auto texts = random_texts(40, 4);
  const TrainedTokenizer t = train(texts, {420, 2});
  std::vector<std::pair<Ids, std::int64_t>> pieces;
  std::map<std::string, std::int32_t> ids;
  for (std::size_t id = 0; id < t.vocab.size(); ++id) ids.emplace(t.vocab[id], id);
  for (const std::string& text : texts)
    PreTokenizer::published().split(text, [&](std::string_view piece) {
      Ids bytes;
      for (const char c : piece) bytes.push_back(ids.at(to_stand_ins({&c, 1})));
      pieces.emplace_back(bytes, 1);
    });
  ASSERT_GT(t.merges.size(), 50u);
  for (const Merge& merge : t.merges) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;
    for (const auto& [piece, count] : pieces)
      for (std::size_t i = 0; i + 1 < piece.size(); ++i) counts[{piece[i], piece[i + 1]}] += count;
    auto best = counts.begin();
    for (auto it = counts.begin(); it != counts.end(); ++it)
      if (it->second > best->second) best = it;
    ASSERT_EQ(best->first, (std::pair{merge.left, merge.right}));
    for (auto& [piece, count] : pieces) {
      Ids joined;
      for (std::size_t i = 0; i < piece.size(); ++i) {
        if (i + 1 < piece.size() && piece[i] == merge.left && piece[i + 1] == merge.right) {
          joined.push_back(merge.joined);
          ++i;
        } else {
          joined.push_back(piece[i]);
        }
      }
      piece = joined;
    }
  }
}

TEST(BpeTrainer, DoesNotDependOnThreadsOrOrder) {
  auto texts = random_texts(200, 9);
  set_threads(1);
  const TrainedTokenizer one = train(texts, {500, 2});
  set_threads(3);
  std::reverse(texts.begin(), texts.end());
  const TrainedTokenizer three = train(texts, {500, 2});
  set_threads(available_cores());
  EXPECT_EQ(one.vocab, three.vocab);
}

TEST(BpeTrainer, WritesWhatLoadReads) {
  const auto texts = random_texts(100, 2);
  const TrainedTokenizer trained = train(texts, {600, 2});
  EXPECT_LE(trained.vocab_size(), 600);
  test::TemporaryDirectory dir;
  write_tokenizer(dir.path() / "new", trained);
  const Tokenizer loaded = Tokenizer::load(dir.path() / "new");
  const Tokenizer direct = trained.tokenizer();
  EXPECT_EQ(loaded.vocab_size(), trained.vocab_size());
  EXPECT_EQ(loaded.bos_id(), 0);
  EXPECT_EQ(loaded.eos_id(), 1);
  EXPECT_EQ(loaded.pad_id(), 2);
  EXPECT_TRUE(loaded.add_bos_token());
  for (const std::string& text : random_texts(50, 3)) {
    EXPECT_EQ(loaded.encode(text), direct.encode(text));
    EXPECT_EQ(loaded.decode(loaded.encode(text)), text);
  }
  EXPECT_FALSE(ChatTemplate::load(dir.path() / "new").opens_thinking());
  for (const char* token : {"<｜User｜>", "<｜fim▁hole｜>", "<｜tool▁sep｜>", "<think>", "</think>"})
    EXPECT_EQ(loaded.encode(token).size(), 1u) << token;
}

TEST(BpeTrainer, ExtremeTexts) {
  EXPECT_EQ(train({}).vocab_size(), least_vocab_size());
  EXPECT_EQ(train({""}).vocab_size(), least_vocab_size());
  const TrainedTokenizer t = train({std::string(1 << 20, 'a'), std::string(1 << 20, '\n')});
  EXPECT_GT(t.merges.size(), 10u);
  EXPECT_THROW(train({"\xFF"}), FormatError);
  EXPECT_THROW(train({"a"}, {least_vocab_size() - 1, 2}), ConfigError);
  EXPECT_THROW(train({"a"}, {1 << 30, 2}), ConfigError);
  EXPECT_THROW(train({"a"}, {1000, 0}), ConfigError);
}

}  // namespace
}  // namespace minke

#include "data/document_transform.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/packing.h"
#include "data/test_files.h"
#include "text/bpe_trainer.h"
#include "text/utf8.h"

namespace minke {
namespace {

const std::string kText =
    "床前明月光，\n疑是地上霜。\nHello world. Hello hole, hello world.\nThe end.\n\nThe end!\n";

const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    const std::string_view texts[] = {kText, kText, kText};
    return train_bpe(texts, {.vocab_size = least_vocab_size() + 40}).tokenizer();
  }();
  return made;
}

TextEncoder encoder() {
  return TextEncoder(tokenizer(), "test");
}

std::int32_t id_of(const char* name) {
  return tokenizer().token_to_id(name).value();
}

struct Parts {
  std::string prefix, middle, suffix;
};

// Takes <bos> <fim_begin> prefix <fim_hole> suffix <fim_end> middle <eos> apart.
Parts parts_of(const std::vector<std::int32_t>& ids) {
  const auto hole = std::find(ids.begin(), ids.end(), id_of("<｜fim▁hole｜>"));
  const auto end = std::find(ids.begin(), ids.end(), id_of("<｜fim▁end｜>"));
  EXPECT_EQ(ids.at(0), *tokenizer().bos_id());
  EXPECT_EQ(ids.at(1), id_of("<｜fim▁begin｜>"));
  EXPECT_EQ(ids.back(), *tokenizer().eos_id());
  EXPECT_TRUE(hole < end && end < ids.end());
  const auto text = [](auto from, auto to) {
    return tokenizer().decode(std::vector<std::int32_t>(from, to));
  };
  return {text(ids.begin() + 2, hole), text(end + 1, ids.end() - 1), text(hole + 1, end)};
}

TEST(DocumentTransform, FillInTheMiddleHasAllTextInThreeParts) {
  const DocumentTransform transform(encoder(), {.fim = 1});
  const std::vector<std::int32_t> document = encoder().document(kText);
  std::set<std::string> middles;
  for (std::int64_t number = 0; number < 200; ++number) {
    const Parts parts = parts_of(transform.apply(document, 1, 0, number));
    EXPECT_EQ(parts.prefix + parts.middle + parts.suffix, kText);
    EXPECT_FALSE(parts.middle.empty());
    middles.insert(parts.middle);
  }
  EXPECT_GT(middles.size(), 150u);
}

// The hole's borders are between characters, also inside what is one token of the whole text.
TEST(DocumentTransform, TheCutsAreCharactersNotTokens) {
  const DocumentTransform transform(encoder(), {.fim = 1});
  const std::string text = "Hello 明月";
  std::map<std::string, int> prefixes;
  for (std::int64_t number = 0; number < 400; ++number)
    ++prefixes[parts_of(transform.apply(encoder().document(text), 1, 0, number)).prefix];
  // 8 characters: prefixes of 0 to 7 of them.
  EXPECT_EQ(prefixes.size(), 8u);
  EXPECT_TRUE(prefixes.contains("Hello 明"));
  EXPECT_TRUE(prefixes.contains("Hell"));
}

TEST(DocumentTransform, TheRateHolds) {
  const DocumentTransform transform(encoder(), {.fim = 0.1});
  const std::vector<std::int32_t> document = encoder().document(kText);
  int changed = 0;
  for (std::int64_t number = 0; number < 5000; ++number)
    changed += transform.apply(document, 1, 0, number) != document;
  EXPECT_NEAR(changed, 500, 5 * std::sqrt(450));
}

TEST(DocumentTransform, DependsOnSeedEpochAndDocumentAlone) {
  const DocumentTransform transform(encoder(), {.fim = 1, .split = 0.5});
  const DocumentTransform other(encoder(), {.fim = 1, .split = 0.5});
  const std::vector<std::int32_t> document = encoder().document(kText);
  const auto one = transform.apply(document, 1, 2, 3);
  transform.apply(document, 1, 2, 4);
  EXPECT_EQ(transform.apply(document, 1, 2, 3), one);
  EXPECT_EQ(other.apply(document, 1, 2, 3), one);
  EXPECT_NE(transform.apply(document, 2, 2, 3), one);
  EXPECT_NE(transform.apply(document, 1, 3, 3), one);
  EXPECT_NE(transform.apply(document, 1, 2, 4), one);
}

TEST(DocumentTransform, JoinedPunctuationIsSplitAtTheRate) {
  const std::vector<std::int32_t> document = encoder().document(kText);
  const auto all = DocumentTransform(encoder(), {.split = 1}).apply(document, 1, 0, 0);
  EXPECT_GT(all.size(), document.size()) << "the tokenizer has learned tokens such as \".\\n\"";
  EXPECT_EQ(tokenizer().decode(all), tokenizer().decode(document));
  for (const std::int32_t id : all) {
    const std::string_view bytes = tokenizer().token_bytes(id);
    if (find_invalid_utf8(bytes) != kValidUtf8) continue;  // begins inside a character
    EXPECT_FALSE(bytes.size() > 1 && bytes.back() == '\n' && bytes.front() != '\n') << bytes;
  }
  const auto joined = static_cast<double>(all.size() - document.size());
  double split = 0;
  const DocumentTransform half(encoder(), {.split = 0.5});
  for (std::int64_t number = 0; number < 1000; ++number)
    split += static_cast<double>(half.apply(document, 1, 0, number).size() - document.size());
  EXPECT_NEAR(split / 1000 / joined, 0.5, 0.05);
}

// Transformed documents have other lengths: the position counts in those.
TEST(DocumentTransform, RowsResumeExactlyForAnyNumberOfRanks) {
  std::vector<Document> documents;
  for (int i = 0; i < 12; ++i)
    documents.push_back({kText.substr(0, static_cast<std::size_t>(kText.find('\n') + 1)) +
                             std::string(static_cast<std::size_t>(i), 'x'),
                         "s", "x", i + 1});
  const TokenCorpus corpus = tokenize_corpus(documents, encoder(), encoder().end_of_sentence());
  const DocumentTransform transform(encoder(), {.fim = 0.5, .split = 0.5});
  const auto options = [&](Index rank, Index ranks) {
    return BatchOptions{.shares = {}, .transform = &transform, .rank = rank, .ranks = ranks};
  };
  BatchSource whole(corpus, 9, 3, options(0, 1));
  EXPECT_NE(whole.next(9), BatchSource(corpus, 9, 3).next(9));
  for (Index ranks = 1; whole.position().epoch < 3; ranks = ranks % 3 + 1) {
    const DataPosition position = whole.position();
    for (Index rank = 0; rank < ranks; ++rank) {
      const auto expected = whole.next(1);
      BatchSource resumed(corpus, 9, 3, options(rank, ranks));
      resumed.set_position(position);
      ASSERT_EQ(resumed.next(1), expected) << position.rows << " rank " << rank << " of " << ranks;
    }
  }
  EXPECT_THROW(whole.set_position(BatchSource(corpus, 9, 3).position()), ConfigError)
      << "without the rates the data are others";
}

TEST(DocumentTransform, NothingToCutAndNothingToDo) {
  const DocumentTransform transform(encoder(), {.fim = 1, .split = 1});
  const std::vector<std::int32_t> empty = {*tokenizer().bos_id(), *tokenizer().eos_id()};
  EXPECT_EQ(transform.apply(empty, 1, 0, 0), empty);
  const Parts one = parts_of(transform.apply(encoder().document("字"), 1, 0, 0));
  EXPECT_EQ(one.middle, "字");
  const std::vector<std::int32_t> document = encoder().document(kText);
  EXPECT_EQ(DocumentTransform(encoder(), {}).apply(document, 1, 0, 0), document);
}

TEST(DocumentTransform, ATokenizerWithoutTheTokensIsRefused) {
  TokenizerParts parts;
  for (int byte = 0; byte < 256; ++byte)
    parts.vocab.push_back(std::string(tokenizer().token_content(byte + 3)));
  parts.vocab.push_back("<end>");
  parts.added_tokens = {{256, "<end>", true, false}};
  const Tokenizer bytes(std::move(parts), {.bos_token = {}, .eos_token = "<end>", .pad_token = {}});
  const TextEncoder plain(bytes, "test");
  EXPECT_HOLDS(error_of([&] { DocumentTransform(plain, {.fim = 0.1}); }), "<｜fim▁begin｜>");
  EXPECT_HOLDS(error_of([&] { DocumentTransform(plain, {.split = 0.1}); }), "data.split_rate");
}

}  // namespace
}  // namespace minke

#include "data/token_corpus.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/threads.h"
#include "data/test_corpus.h"

namespace minke {
namespace {

TEST(TokenCorpus, DocumentsEndWithEndOfSentence) {
  const TokenCorpus corpus = tokenize_corpus(
      {{"ab", "s", "", 1}, {"", "s", "", 1}, {"c", "t", "", 1}, {"d", "s", "", 1}}, bytes_of, eos);
  EXPECT_EQ(all_tokens(corpus), (std::vector<std::int32_t>{'a', 'b', eos, 'c', eos, 'd', eos}));
  ASSERT_EQ(corpus.documents.size(), 3);
  EXPECT_EQ(corpus.sources, (std::vector<std::string>{"s", "t"}));
  EXPECT_EQ(corpus.documents[1].begin, 3);
  EXPECT_EQ(corpus.documents[1].end, 5);
  EXPECT_EQ(corpus.documents[1].source, 1);
  EXPECT_EQ(corpus.text_bytes(), 4);
}

TEST(TokenCorpus, TokensDoNotDependOnThreads) {
  const auto one = [] {
    set_threads(1);
    return all_tokens(letter_corpus(26));
  }();
  const auto four = [] {
    set_threads(4);
    return all_tokens(letter_corpus(26));
  }();
  set_threads(available_cores());
  EXPECT_EQ(one, four);
}

TEST(TokenCorpus, AFormatErrorOfTheTokenizerGetsFileAndLine) {
  const auto fails = [](std::string_view) -> std::vector<std::int32_t> {
    throw FormatError("no piece");
  };
  try {
    tokenize_corpus({{"x", "s", "f.jsonl", 7}}, fails, eos);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "f.jsonl: line 7: no piece");
  }
}

TEST(TokenCorpus, TokensAreCopiedFromAnyPlace) {
  const TokenCorpus corpus = letter_corpus(9);
  const std::vector<std::int32_t> all = all_tokens(corpus);
  for (Index i = 0; i < corpus.documents.size(); ++i) {
    const TokenDocument place = corpus.documents[i];
    EXPECT_EQ(corpus.document_tokens(i),
              std::vector<std::int32_t>(all.begin() + place.begin, all.begin() + place.end));
  }
}

TEST(TokenCorpus, IdentityTellsTokensApart) {
  EXPECT_EQ(letter_corpus(9).identity, letter_corpus(9).identity);
  EXPECT_NE(letter_corpus(9).identity, letter_corpus(8).identity);
}

}  // namespace
}  // namespace minke

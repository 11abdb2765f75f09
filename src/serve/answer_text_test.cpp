#include "serve/answer_text.h"

#include <gtest/gtest.h>

#include "text/utf8.h"

namespace minke {
namespace {

// The pieces of a text that comes as these tokens, joined, and all tokens' bytes.
struct Result {
  std::string text, bytes;
  std::size_t n_pieces = 0;
  bool stopped = false;
};
Result read(const std::vector<std::string>& stops, const std::vector<std::string>& tokens) {
  AnswerText reader(stops);
  Result out;
  const auto add = [&](const TextPiece& piece) {
    EXPECT_EQ(find_invalid_utf8(piece.text), kValidUtf8);
    out.text += piece.text;
    out.n_pieces += piece.text.empty() ? 0 : 1;
    for (const TextToken& token : piece.tokens) out.bytes += token.bytes;
  };
  for (const std::string& token : tokens) {
    add(reader.push({.id = 1, .logprob = {}, .top = {}}, token));
    if (reader.stopped()) break;
  }
  add(reader.finish());
  out.stopped = reader.stopped();
  return out;
}

TEST(AnswerText, HoldsBackWhatCouldBecomeAStopString) {
  AnswerText reader({"END"});
  EXPECT_EQ(reader.push({}, "aE").text, "a");
  EXPECT_EQ(reader.push({}, "N").text, "");
  EXPECT_EQ(reader.push({}, "x").text, "ENx");
  EXPECT_EQ(reader.push({}, "yEN").text, "y");
  EXPECT_EQ(reader.finish().text, "EN");
}

TEST(AnswerText, TheStopStringIsNoPartOfTheText) {
  for (const auto& tokens : std::vector<std::vector<std::string>>{
           {"one ST", "OP two"}, {"one STOP"}, {"one ", "S", "T", "O", "P"}}) {
    const Result r = read({"STOP", "never"}, tokens);
    EXPECT_EQ(r.text, "one ");
    EXPECT_EQ(r.bytes, "one ");
    EXPECT_TRUE(r.stopped);
  }
}

TEST(AnswerText, TheFirstOfSeveralStopsCounts) {
  EXPECT_EQ(read({"cd", "b"}, {"abcd"}).text, "a");
  EXPECT_EQ(read({"aab"}, {"a", "a", "a", "b"}).text, "a");
}

TEST(AnswerText, CharactersComeWhole) {
  const Result r = read({}, {"\xE6", "\x98\xA5", "\xE7\x9C", "\xA0!"});
  EXPECT_EQ(r.text, "春眠!");
  EXPECT_EQ(r.bytes, "春眠!");
  EXPECT_EQ(r.n_pieces, 2u);
}

TEST(AnswerText, ABrokenEndIsOneReplacementCharacter) {
  const Result r = read({}, {"a", "\xE6\x98"});
  EXPECT_EQ(r.text, "a\uFFFD");
  EXPECT_EQ(r.bytes, "a\xE6\x98");
}

TEST(AnswerText, OffsetsCountCharacters) {
  AnswerText reader({}, 5);
  const TextPiece first = reader.push({}, "春a");
  const TextPiece second = reader.push({}, "b");
  ASSERT_EQ(first.tokens.size(), 1u);
  ASSERT_EQ(second.tokens.size(), 1u);
  EXPECT_EQ(first.tokens[0].offset, 5u);
  EXPECT_EQ(second.tokens[0].offset, 7u);
}

TEST(AnswerText, TokensWithoutTextAreHandedOutOnce) {
  AnswerText reader;
  std::size_t n = reader.push({}, "").tokens.size();
  n += reader.push({}, "x").tokens.size();
  n += reader.finish().tokens.size();
  EXPECT_EQ(n, 2u);
}

}  // namespace
}  // namespace minke

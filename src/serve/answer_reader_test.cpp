#include "serve/answer_reader.h"

#include <gtest/gtest.h>

#include "text/byte_level.h"

namespace minke {
namespace {

// Bytes are tokens 0 to 255; then come those that have a meaning.
constexpr std::int32_t kEnd = 256, kThink = 257, kThinkEnd = 258, kCalls = 259, kCall = 260,
                       kSeparator = 261, kCallEnd = 262, kCallsEnd = 263;

ServedModel marked_model() {
  TokenizerParts parts;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    parts.vocab.push_back(to_stand_ins({&c, 1}));
  }
  for (const char* mark :
       {"<end>", "<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"}) {
    const auto id = static_cast<std::int32_t>(parts.vocab.size());
    parts.added_tokens.push_back({.id = id, .content = mark, .special = id == kEnd});
    parts.vocab.push_back(mark);
  }
  return {"marked", Tokenizer(std::move(parts)), ChatTemplate::named("deepseek-v3"), {kEnd}};
}

std::vector<std::int32_t> ids(std::string_view text) {
  std::vector<std::int32_t> out;
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

std::vector<std::int32_t> operator+(std::vector<std::int32_t> a, std::int32_t id) {
  a.push_back(id);
  return a;
}

std::vector<std::int32_t> operator+(std::vector<std::int32_t> a,
                                    const std::vector<std::int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Answer {
  std::string reasoning, content;
  std::vector<std::string> names, arguments;
  std::size_t n_tokens = 0;  // of the content
};

// As generation does it: until the reader has stopped.
Answer read(AnswerReader& reader, const std::vector<std::int32_t>& tokens) {
  Answer out;
  const auto add = [&](const AnswerDelta& delta) {
    EXPECT_TRUE(delta.reasoning.empty() || out.content.empty());
    out.reasoning += delta.reasoning;
    out.content += delta.content;
    out.n_tokens += delta.tokens.size();
    for (const ToolPiece& piece : delta.tools) {
      if (piece.name) {
        out.names.push_back(*piece.name);
        out.arguments.emplace_back();
      }
      ASSERT_EQ(piece.index, static_cast<Index>(out.names.size()) - 1);
      out.arguments.back() += piece.arguments;
    }
  };
  for (const std::int32_t id : tokens) {
    if (reader.stopped()) break;
    add(reader.push({.id = id, .logprob = -1.0F, .top = {}}));
  }
  add(reader.finish());
  return out;
}

TEST(AnswerReader, ThinkingComesBeforeContentWithoutTags) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {}, ToolForm::None, /*thinking=*/true);
  const Answer answer = read(reader, ids("why") + kThinkEnd + ids("so") + kThinkEnd + kThink);
  EXPECT_EQ(answer.reasoning, "why");
  EXPECT_EQ(answer.content, "so");
  EXPECT_EQ(answer.n_tokens, 2U);
  EXPECT_EQ(reader.reasoning_tokens(), 4);  // with the token that ends it
}

TEST(AnswerReader, TheModelMayBeginToThinkOnlyFirst) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {}, ToolForm::None, /*thinking=*/false);
  const Answer answer = read(reader, ids("") + kThink + ids("a") + kThinkEnd + ids("b"));
  EXPECT_EQ(answer.reasoning, "a");
  EXPECT_EQ(answer.content, "b");
  AnswerReader later(model, {}, ToolForm::None, /*thinking=*/false);
  EXPECT_EQ(read(later, ids("b") + kThink + ids("c")).content, "bc");
}

TEST(AnswerReader, ALimitInsideTheThinkingLeavesNoContent) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {}, ToolForm::None, /*thinking=*/true);
  const Answer answer = read(reader, ids("ab\xE6"));
  EXPECT_EQ(answer.reasoning, "ab\uFFFD");
  EXPECT_EQ(answer.content, "");
  EXPECT_EQ(reader.reasoning_tokens(), 3);
}

TEST(AnswerReader, StopStringsEndTheContentOnly) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {"x"}, ToolForm::Tokens, /*thinking=*/true);
  const Answer answer = read(reader, ids("axb") + kThinkEnd + ids("cxd"));
  EXPECT_EQ(answer.reasoning, "axb");
  EXPECT_EQ(answer.content, "c");
  EXPECT_TRUE(reader.stopped());
}

TEST(AnswerReader, CallsByTokensFollowContent) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {"city"}, ToolForm::Tokens, /*thinking=*/false);
  const auto call = [](std::string_view name) {
    return std::vector{kCall} + ids("function") + kSeparator +
           ids(std::string(name) + "\n```json\n{\"city\": 1}\n```") + kCallEnd;
  };
  const Answer answer =
      read(reader, ids("ci") + kCalls + call("f") + ids("\n") + call("g") + kCallsEnd + kEnd);
  EXPECT_EQ(answer.content, "ci");
  EXPECT_EQ(answer.names, (std::vector<std::string>{"f", "g"}));
  EXPECT_EQ(answer.arguments, (std::vector<std::string>{"{\"city\": 1}", "{\"city\": 1}"}));
  EXPECT_FALSE(reader.stopped());
  EXPECT_EQ(reader.n_calls(), 2);
}

// The arguments of a call that must be made always parse.
TEST(AnswerReader, StopStringsDoNotCutACallWrittenAsAnObject) {
  const ServedModel model = marked_model();
  AnswerReader reader(model, {"}", "name"}, ToolForm::Object, /*thinking=*/true);
  const Answer answer = read(
      reader, ids("a") + kThinkEnd + ids("{\"name\": \"f\", \"arguments\": {\"x\": {}}}") + kEnd);
  EXPECT_EQ(answer.content, "");
  EXPECT_EQ(answer.names, std::vector<std::string>{"f"});
  EXPECT_EQ(answer.arguments, std::vector<std::string>{"{\"x\": {}}"});
}

}  // namespace
}  // namespace minke

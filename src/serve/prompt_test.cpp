#include "serve/prompt.h"

#include <gtest/gtest.h>

#include "text/byte_level.h"

namespace minke {
namespace {

ServedModel thinking_model(const char* chat_template) {
  TokenizerParts parts;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    parts.vocab.push_back(to_stand_ins({&c, 1}));
  }
  for (const char* mark : {"<think>", "</think>"}) {
    const auto id = static_cast<std::int32_t>(parts.vocab.size());
    parts.added_tokens.push_back({.id = id, .content = mark, .special = false});
    parts.vocab.push_back(mark);
  }
  return {"model", Tokenizer(std::move(parts)), ChatTemplate::named(chat_template), {0}};
}

struct Written {
  std::string text;
  bool thinking;
};

Written written(const ServedModel& model, ChatRequest request) {
  const ChatPrompt prompt = chat_prompt(model, request);
  return {model.tokenizer.decode(prompt.ids, SkipSpecial::No), prompt.thinking};
}

Message message(const char* role, const char* content) {
  return {.role = role, .content = content, .tool_calls = {}};
}

TEST(ChatPrompt, TheReasonerThinksWhateverTheTemplate) {
  for (const char* name : {"deepseek-v3", "deepseek-r1"}) {
    const ServedModel model = thinking_model(name);
    ChatRequest request{.messages = {message("user", "hi")}};
    request.common.model = kReasonerName;
    const Written prompt = written(model, request);
    EXPECT_EQ(prompt.text, "<｜User｜>hi<｜Assistant｜><think>\n") << name;
    EXPECT_TRUE(prompt.thinking);
  }
}

TEST(ChatPrompt, APrefixAloneClosesTheThinkingThatTheTemplateOpens) {
  const ServedModel model = thinking_model("deepseek-r1");
  for (const std::string_view name : {kChatName, kReasonerName}) {
    ChatRequest request{.messages = {message("assistant", "so")}, .prefix = true};
    request.common.model = name;
    request.prefix_reasoning = "why";
    const Written prompt = written(model, request);
    EXPECT_EQ(prompt.text, "<｜Assistant｜><think>\nwhy\n</think>\n\nso") << name;
    EXPECT_FALSE(prompt.thinking);
  }
}

// The template then opens no thinking, also where a system message comes last.
TEST(ChatPrompt, AfterAToolsResultOnlyTheReasonerThinks) {
  const ServedModel model = thinking_model("deepseek-r1");
  ChatRequest request{.messages = {message("tool", "3"), message("system", "be brief")}};
  request.common.model = kChatName;
  const std::string text =
      "be brief<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>3<｜tool▁output▁end｜>"
      "<｜tool▁outputs▁end｜>";
  EXPECT_EQ(written(model, request).text, text);
  EXPECT_FALSE(written(model, request).thinking);
  request.common.model = kReasonerName;
  EXPECT_EQ(written(model, request).text, text + "<think>\n");
  EXPECT_TRUE(written(model, request).thinking);
}

// The templates write the calls of a message without content only.
TEST(ChatPrompt, AMessageWithContentKeepsItsCalls) {
  const ServedModel model = thinking_model("deepseek-v3");
  ChatRequest request{.messages = {message("user", "hi"), message("assistant", "let me see"),
                                   message("tool", "3")}};
  request.messages[1].tool_calls.push_back({.name = "f", .arguments = "{}"});
  EXPECT_EQ(written(model, request).text,
            "<｜User｜>hi<｜Assistant｜>let me see<｜end▁of▁sentence｜><｜Assistant｜>"
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```"
            "<｜tool▁call▁end｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>3"
            "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>");
}

}  // namespace
}  // namespace minke

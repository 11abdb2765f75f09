#include "serve/openai_response.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(ChatDelta, PiecesOfOneCallAreOneEntry) {
  AnswerDelta delta;
  delta.tools = {{.index = 0, .name = {}, .arguments = "}"},
                 {.index = 1, .name = "f", .arguments = ""},
                 {.index = 1, .name = {}, .arguments = "{\"a\""},
                 {.index = 1, .name = {}, .arguments = ": 1"}};
  const ApiJson calls =
      chat_delta(delta, std::vector<std::string>{"call_a", "call_b"})["tool_calls"];
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_EQ(calls[0], ApiJson({{"index", 0}, {"function", {{"arguments", "}"}}}}));
  EXPECT_EQ(calls[1], ApiJson({{"index", 1},
                               {"id", "call_b"},
                               {"type", "function"},
                               {"function", {{"name", "f"}, {"arguments", "{\"a\": 1"}}}}));
}

}  // namespace
}  // namespace minke

#include "serve/tool_call_reader.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

constexpr ToolTokens kTokens{1, 2, 3, 4, 5};

struct Calls {
  std::vector<std::string> names, arguments;
};
Calls joined(const std::vector<ToolPiece>& pieces) {
  Calls out;
  for (const ToolPiece& piece : pieces) {
    if (piece.name) {
      out.names.push_back(*piece.name);
      out.arguments.emplace_back();
    }
    EXPECT_EQ(piece.index, static_cast<Index>(out.names.size()) - 1);
    out.arguments.back() += piece.arguments;
  }
  return out;
}

// Every way to cut the text in two must give the same.
TEST(ToolTokenReader, ReadsThePublishedForm) {
  const std::string head = "get_weather\n```json\n{\"city\": \"a\\n```b\"}\n```";
  for (std::size_t cut = 0; cut <= head.size(); ++cut) {
    ToolTokenReader reader(kTokens);
    std::vector<ToolPiece> out;
    EXPECT_FALSE(reader.mark(9, out));
    for (const std::int32_t id : {1, 2}) EXPECT_TRUE(reader.mark(id, out));
    reader.text("function", out);
    reader.mark(3, out);
    reader.text(head.substr(0, cut), out);
    reader.text(head.substr(cut), out);
    reader.mark(4, out);
    reader.text("\n", out);
    reader.mark(2, out);
    reader.text("function", out);
    reader.mark(3, out);
    reader.text("other\n```json\n{}\n```", out);
    reader.mark(4, out);
    reader.mark(5, out);
    const Calls calls = joined(out);
    EXPECT_EQ(calls.names, (std::vector<std::string>{"get_weather", "other"}));
    EXPECT_EQ(calls.arguments, (std::vector<std::string>{"{\"city\": \"a\\n```b\"}", "{}"}));
    EXPECT_EQ(reader.n_calls(), 2);
  }
}

TEST(ToolTokenReader, ACallThatIsCutGivesWhatThereIs) {
  ToolTokenReader reader(kTokens);
  std::vector<ToolPiece> out;
  for (const std::int32_t id : {1, 2, 3}) reader.mark(id, out);
  reader.text("f\n```json\n{\"a\": 1\n", out);
  reader.finish(out);
  const Calls calls = joined(out);
  ASSERT_EQ(calls.names, std::vector<std::string>{"f"});
  EXPECT_EQ(calls.arguments[0], "{\"a\": 1\n");
}

TEST(ToolObjectReader, ReadsOneObjectWhereverItIsCut) {
  const std::string text = "{\"name\": \"f\", \"arguments\": {\"x\": \"}\\\"\", \"y\": [1]}}";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    ToolObjectReader reader;
    std::vector<ToolPiece> out;
    reader.text(text.substr(0, cut), out);
    reader.text(text.substr(cut), out);
    const Calls calls = joined(out);
    ASSERT_EQ(calls.names, std::vector<std::string>{"f"}) << cut;
    EXPECT_EQ(calls.arguments[0], "{\"x\": \"}\\\"\", \"y\": [1]}") << cut;
  }
}

}  // namespace
}  // namespace minke

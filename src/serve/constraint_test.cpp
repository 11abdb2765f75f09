#include "serve/constraint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "base/error.h"
#include "text/byte_level.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kToolMarks[] = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
                                      "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
                                      "<｜tool▁calls▁end｜>"};

enum class Marks { None, Tools };

Tokenizer small_tokenizer(Marks marks) {
  TokenizerParts parts;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    parts.vocab.push_back(to_stand_ins({&c, 1}));
  }
  for (const char* piece : {"{\"", "\":", "\"}", "func", "\n```", "json", "}\n", "12", "ab"})
    parts.vocab.push_back(to_stand_ins(piece));
  std::vector<std::string> added = {"<end>", "</think>"};
  if (marks == Marks::Tools)
    added.insert(added.end(), std::begin(kToolMarks), std::end(kToolMarks));
  for (const std::string& content : added) {
    parts.added_tokens.push_back({.id = static_cast<std::int32_t>(parts.vocab.size()),
                                  .content = content,
                                  .special = content == "<end>"});
    parts.vocab.push_back(content);
  }
  return Tokenizer(std::move(parts));
}

class ConstraintTest : public testing::Test {
 protected:
  std::int32_t id(std::string_view content) const { return *tokenizer_.token_to_id(content); }
  std::vector<std::int32_t> stops() const { return {id("<end>")}; }

  std::vector<std::int32_t> allowed(TokenConstraint& constraint) const {
    // Some logits more than tokens, as published models have.
    std::vector<float> logits(static_cast<std::size_t>(tokenizer_.vocab_size()) + 9, 0.5f);
    constraint.mask(logits);
    std::vector<std::int32_t> out;
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (!std::isinf(logits[i])) out.push_back(static_cast<std::int32_t>(i));
    return out;
  }
  bool allows(TokenConstraint& constraint, std::int32_t id) const {
    const auto ids = allowed(constraint);
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  }
  // Takes the text byte by byte, an added token where its content stands in <> at the place.
  void take(TokenConstraint& constraint, std::string_view text) const {
    while (!text.empty()) {
      std::int32_t next = id(to_stand_ins(text.substr(0, 1)));
      std::size_t bytes = 1;
      for (const AddedToken& token : tokenizer_.added_tokens())
        if (text.starts_with(token.content)) next = token.id, bytes = token.content.size();
      ASSERT_TRUE(allows(constraint, next)) << "before: " << text;
      constraint.accept(next);
      text.remove_prefix(bytes);
    }
  }
  // A random text up to a stop id: closing pieces first once it is long.
  std::string walk(TokenConstraint& constraint, std::mt19937& random) const {
    std::string text;
    for (int n = 0; n < 3000; ++n) {
      const auto ids = allowed(constraint);
      EXPECT_FALSE(ids.empty()) << text;
      if (ids.empty()) return text;
      std::int32_t next = ids[random() % ids.size()];
      if (n > 40)
        for (const char c : {'"', '}', ']'})
          if (std::find(ids.begin(), ids.end(), c) != ids.end() && random() % 3) next = c;
      if (std::find(ids.begin(), ids.end(), id("<end>")) != ids.end() && random() % 2)
        next = id("<end>");
      constraint.accept(next);
      if (next == id("<end>")) return text;
      text += tokenizer_.token_bytes(next);
    }
    return text + "...";
  }

  Tokenizer tokenizer_ = small_tokenizer(Marks::Tools);
  std::shared_ptr<const TokenTrie> vocabulary_ = constraint_vocabulary(tokenizer_);
};

ToolDefinition weather() {
  return {"weather", "of a town",
          Json::parse(R"({"type":"object","properties":{"town":{"type":"string"},
                          "days":{"type":"integer","minimum":1,"maximum":14}},
                          "required":["town"]})")};
}
ToolDefinition weather_map() {
  return {"weather_map", "", Json()};
}

TEST_F(ConstraintTest, StopsExactlyWhenTheObjectIsClosed) {
  const auto constraint = json_object_constraint(vocabulary_, stops());
  const std::string text = R"({"a": [1, {"b": "c\""}], "d": null})";
  for (const char c : text) {
    EXPECT_FALSE(allows(*constraint, id("<end>")));
    take(*constraint, std::string(1, c));
  }
  EXPECT_EQ(allowed(*constraint), stops());
  constraint->accept(id("<end>"));
}

TEST_F(ConstraintTest, AddedTokensAreNeverText) {
  const auto constraint = json_object_constraint(vocabulary_, stops());
  take(*constraint, "{\"");
  for (const std::int32_t next : allowed(*constraint)) EXPECT_LT(next, id("<end>"));
}

TEST_F(ConstraintTest, RandomTextsAreObjects) {
  std::mt19937 random(9);
  for (int i = 0; i < 60; ++i) {
    const auto constraint = json_object_constraint(vocabulary_, stops());
    const std::string text = walk(*constraint, random);
    const Json value = Json::parse(text, nullptr, false);
    EXPECT_TRUE(value.is_object()) << text;
  }
}

TEST_F(ConstraintTest, SchemasHoldAndErrorsNameThem) {
  const Json schema = weather().parameters;
  std::mt19937 random(10);
  for (int i = 0; i < 40; ++i) {
    const auto constraint = json_schema_constraint(vocabulary_, schema, "schema", stops());
    const Json value = Json::parse(walk(*constraint, random), nullptr, false);
    ASSERT_TRUE(value.is_object());
    EXPECT_TRUE(value.at("town").is_string());
    const Json days = value.value("days", Json(1));
    EXPECT_TRUE(days >= 1 && days <= 14) << value;
  }
  try {
    json_schema_constraint(vocabulary_, Json::parse(R"({"not":{}})"), "response_format", stops());
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "response_format: keyword \"not\" is not supported");
  }
  EXPECT_THROW(json_object_constraint(vocabulary_, {}), ConfigError);
}

TEST_F(ConstraintTest, ClonesGoTheirOwnWay) {
  const auto one = json_object_constraint(vocabulary_, stops());
  take(*one, "{\"a\":");
  const auto two = one->clone();
  take(*one, "1}");
  take(*two, "[2]}");
  EXPECT_EQ(allowed(*one), stops());
  EXPECT_EQ(allowed(*two), stops());
}

TEST_F(ConstraintTest, RequiredCallsHaveThePublishedForm) {
  const ToolCallForm form{.tools = {weather(), weather_map()},
                          .tokens = ToolTokens::find(tokenizer_)};
  ASSERT_TRUE(form.tokens);
  const auto constraint = tool_call_constraint(vocabulary_, form, stops());
  EXPECT_EQ(allowed(*constraint), std::vector{id(kToolMarks[0])});
  take(*constraint,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
       "{\"town\": \"Köln\", \"days\": 3}\n```<｜tool▁call▁end｜>");
  const auto ended = constraint->clone();
  take(*ended, "<｜tool▁calls▁end｜>");
  EXPECT_EQ(allowed(*ended), stops());
  take(*constraint,
       "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather_map\n```json\n{\"any\":[]}\n```"
       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>");
  EXPECT_EQ(allowed(*constraint), stops());
}

TEST_F(ConstraintTest, OneCallWhereSeveralAreNotWanted) {
  const ToolCallForm form{
      .tools = {weather()}, .tokens = ToolTokens::find(tokenizer_), .parallel = false};
  const auto constraint = tool_call_constraint(vocabulary_, form, stops());
  take(*constraint,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
       "{\"town\":\"\"}\n```<｜tool▁call▁end｜>");
  EXPECT_EQ(allowed(*constraint), std::vector{id(kToolMarks[4])});
}

TEST_F(ConstraintTest, ArgumentsFollowTheSchemaOfTheNamedTool) {
  const ToolCallForm form{.tools = {weather(), weather_map()},
                          .tokens = ToolTokens::find(tokenizer_)};
  const auto constraint = tool_call_constraint(vocabulary_, form, stops());
  take(*constraint, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather");
  EXPECT_TRUE(allows(*constraint, '_') && allows(*constraint, '\n'));
  EXPECT_FALSE(allows(*constraint, 's'));
  take(*constraint, "\n```json\n{");
  EXPECT_FALSE(allows(*constraint, '}'));
  take(*constraint, "\"town\":\"x\"");
  EXPECT_FALSE(allows(*constraint, id(kToolMarks[3])));
  take(*constraint, ",\"days\":1");
  EXPECT_FALSE(allows(*constraint, '5'));
  EXPECT_TRUE(allows(*constraint, '4'));
}

TEST_F(ConstraintTest, AutoLetsTextPassUntilACallBegins) {
  const ToolCallForm form{
      .tools = {weather()}, .tokens = ToolTokens::find(tokenizer_), .use = ToolUse::Auto};
  const auto constraint = tool_call_constraint(vocabulary_, form, stops());
  take(*constraint, "Any { text\xFF");
  EXPECT_TRUE(allows(*constraint, id("<end>")));
  EXPECT_FALSE(allows(*constraint, id(kToolMarks[1])));
  take(*constraint, "<｜tool▁calls▁begin｜>");
  EXPECT_EQ(allowed(*constraint), std::vector{id(kToolMarks[1])});
}

TEST_F(ConstraintTest, WithoutMarksACallIsAnObject) {
  const Tokenizer plain = small_tokenizer(Marks::None);
  EXPECT_FALSE(ToolTokens::find(plain));
  ToolCallForm form{.tools = {weather(), weather_map()}, .tokens = std::nullopt};
  std::mt19937 random(3);
  const auto vocabulary = constraint_vocabulary(plain);
  for (int i = 0; i < 30; ++i) {
    const auto constraint = tool_call_constraint(vocabulary, form, stops());
    const std::string text = walk(*constraint, random);
    const Json call = Json::parse(text, nullptr, false);
    ASSERT_TRUE(call.is_object()) << text;
    EXPECT_TRUE(call["name"] == "weather" ? call["arguments"].contains("town")
                                          : call["name"] == "weather_map");
    EXPECT_TRUE(call["arguments"].is_object());
  }
  form.use = ToolUse::Auto;
  EXPECT_EQ(tool_call_constraint(vocabulary, form, stops()), nullptr);
}

TEST_F(ConstraintTest, ParametersThatAreNotSupportedAreAnyObject) {
  ToolDefinition tool = weather();
  tool.parameters["properties"]["town"]["format"] = "city";
  ToolDefinition endless = weather_map();
  endless.parameters = Json::parse(R"({"$defs":{"a":{"$ref":"#/$defs/a"}},"properties":
                                       {"x":{"$ref":"#/$defs/a"}},"required":["x"]})");
  const ToolCallForm form{.tools = {tool, endless, {"plain", "", Json::object()}},
                          .tokens = std::nullopt};
  for (const char* name : {"weather", "weather_map", "plain"}) {
    const auto constraint = tool_call_constraint(vocabulary_, form, stops());
    take(*constraint, std::string("{\"name\": \"") + name + "\", \"arguments\": {\"else\":1}}");
    EXPECT_EQ(allowed(*constraint), stops());
  }
}

TEST_F(ConstraintTest, ToolsAreChecked) {
  ToolCallForm form{.tools = {}, .tokens = std::nullopt};
  EXPECT_THROW(tool_call_constraint(vocabulary_, form, stops()), ConfigError);
  form.tools = {weather(), weather()};
  EXPECT_THROW(tool_call_constraint(vocabulary_, form, stops()), ConfigError);
  form.tools[1].name = "not a name";
  EXPECT_THROW(tool_call_constraint(vocabulary_, form, stops()), ConfigError);
}

TEST_F(ConstraintTest, BeginsBehindAToken) {
  const auto constraint = constraint_after(
      id("</think>"), json_object_constraint(vocabulary_, stops()), vocabulary_, stops());
  take(*constraint, "thoughts");
  EXPECT_FALSE(allows(*constraint, id("<end>")));
  const auto other = constraint->clone();
  take(*constraint, "</think>{}");
  EXPECT_EQ(allowed(*constraint), stops());
  EXPECT_TRUE(allows(*other, 'x'));
}

}  // namespace
}  // namespace minke

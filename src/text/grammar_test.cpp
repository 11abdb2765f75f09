#include "text/grammar.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "text/grammar_walk_test.h"

namespace minke {
namespace {

using test::matches;
using test::reads;

bool is_object(std::string_view text) {
  return matches(json_object_grammar(), text);
}
bool begins_object(std::string_view text) {
  GrammarState state(json_object_grammar());
  return reads(state, text);
}

TEST(Grammar, JsonObjectsInTheirForms) {
  for (const char* text :
       {"{}", "{ }", "{\n}", R"({"a":1})", R"({"a": -0.5e+3, "b": [1, 2, [], {}], "c": null})",
        "{\n  \"a\": [\n    true,\n    false\n  ]\n}", "{\n\t\"a\": \"\"\n}", R"({"":""})",
        R"({"\"\\\/\b\f\n\r\t\u0000\uD83d\uDe00\uE000": "中文😀"})"})
    EXPECT_TRUE(is_object(text)) << text;
}

TEST(Grammar, RefusesWhatIsNoJson) {
  for (const char* text : {"[",
                           "1",
                           "\"",
                           " {",
                           "{,",
                           R"({"a")"
                           "}",
                           R"({"a":})",
                           R"({"a":1,})",
                           R"({"a":[1,]})",
                           R"({"a":01)",
                           R"({"a":+1)",
                           R"({"a":.5)",
                           R"({"a":1.})",
                           R"({"a":1e})",
                           R"({"a":-)"
                           "}",
                           R"({"a":tru})",
                           R"({"a":nul1)",
                           R"({'a)",
                           R"({"a" "b")",
                           R"({}})",
                           R"({}x)",
                           "{\"\n",
                           R"({"\x)",
                           R"({"\u12g)",
                           R"({"\ud800")",
                           R"({"\ud800\u0041)",
                           R"({"\udc00)",
                           R"({"\ud83dx)"})
    EXPECT_FALSE(begins_object(text)) << text;
}

TEST(Grammar, OnlyWellFormedUtf8) {
  for (const char* text : {"é", "中", "😀", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF"})
    EXPECT_TRUE(begins_object(std::string("{\"") + text + "\"")) << text;
  for (const char* text : {"\x80", "\xC0", "\xC1", "\xE0\x80", "\xED\xA0", "\xF0\x80", "\xF4\x90",
                           "\xF5", "\xFF", "\xC3\"", "\xE4\xBD\"", "\xC3\\"})
    EXPECT_FALSE(begins_object(std::string("{\"") + text));
}

TEST(Grammar, WhitespaceAndNumbersEnd) {
  EXPECT_FALSE(begins_object("{  "));
  EXPECT_FALSE(begins_object("{\n\n"));
  EXPECT_FALSE(begins_object("{\n     "));  // four a level
  EXPECT_TRUE(begins_object("{\n    "));
  EXPECT_FALSE(begins_object("{\n\t\t"));
  EXPECT_FALSE(begins_object("{\n \t"));
  EXPECT_FALSE(begins_object(R"({"a":  )"));
  EXPECT_FALSE(begins_object(R"({"a":1 ,)"));
  EXPECT_TRUE(begins_object(R"({"a":123456789012345678)"));
  EXPECT_FALSE(begins_object(R"({"a":1234567890123456789)"));
  EXPECT_FALSE(begins_object(R"({"a":1e999)"));
}

TEST(Grammar, SixtyFourLevels) {
  std::string text = "{\"a\":";
  for (int i = 1; i < 64; ++i) text += '[';
  EXPECT_TRUE(begins_object(text));
  EXPECT_FALSE(begins_object(text + "["));
  EXPECT_FALSE(begins_object(text + "{"));
  for (int i = 1; i < 64; ++i) text += ']';
  EXPECT_TRUE(is_object(text + "}"));
  EXPECT_NO_THROW(parse_json(text + "}"));
}

TEST(Grammar, OnlyCompleteObjectsAreComplete) {
  const std::string text = R"({"a": [1, "x"]})";
  for (std::size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(is_object(text.substr(0, n))) << n;
  EXPECT_TRUE(is_object(text));
}

TEST(Grammar, CopiesGoTheirOwnWay) {
  GrammarState one(json_object_grammar());
  ASSERT_TRUE(reads(one, R"({"a": [)"));
  GrammarState two = one;
  EXPECT_TRUE(reads(one, "1]}"));
  EXPECT_TRUE(one.complete());
  EXPECT_FALSE(two.complete());
  EXPECT_TRUE(reads(two, R"("x", {}], "b": 2})"));
  EXPECT_TRUE(two.complete());
}

TEST(Grammar, RandomTextsParse) {
  std::mt19937 random(5);
  int ended = 0;
  for (int i = 0; i < 300; ++i) {
    const auto text =
        test::random_text(json_object_grammar(), random, 400, [](const GrammarState&) {});
    if (!text) continue;
    ++ended;
    EXPECT_TRUE(nlohmann::json::accept(*text)) << *text;
  }
  EXPECT_GT(ended, 250);
}

// Alternatives that stay alike double at each level; only so many are followed, and what is left
// still leads to an end.
TEST(Grammar, AlternativesThatStayAlikeAreBounded) {
  auto grammar = std::make_shared<Grammar>();
  const RuleId tree = grammar->reserve();
  const RuleId one = grammar->add({ArrayRule{.first = {}, .items = tree}});
  const RuleId other = grammar->add({ArrayRule{.first = {}, .items = tree, .max = 5}});
  grammar->set(tree, {AnyOfRule{{one, other}}});
  grammar->finish(tree);
  GrammarState state(grammar);
  ASSERT_TRUE(reads(state, std::string(60, '[')));
  EXPECT_LE(state.n_threads(), kMostThreads);
  ASSERT_TRUE(reads(state, std::string(60, ']')));
  EXPECT_TRUE(state.complete());
}

TEST(Grammar, WhatHasNoFiniteTextIsRefused) {
  Grammar grammar;
  const RuleId endless = grammar.reserve();
  grammar.set(endless, {ArrayRule{.first = {}, .items = endless, .min = 1}});
  EXPECT_THROW(grammar.finish(endless), ConfigError);
}

}  // namespace
}  // namespace minke

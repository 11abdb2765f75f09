#include "text/grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "text/grammar_walk_test.h"
#include "text/json_terminals.h"

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

bool accepts(const ByteDfa& dfa, std::string_view text) {
  ByteDfa::State state = 0;
  for (const char c : text) {
    state = dfa.next[state][static_cast<unsigned char>(c)];
    if (state == ByteDfa::kNone) return false;
  }
  return dfa.accepts[state];
}

NumberBounds bounds_of(const std::string& min, const std::string& max, bool exclusive) {
  NumberBounds out;
  if (!min.empty()) out.min = decimal_of(nlohmann::ordered_json::parse(min), exclusive);
  if (!max.empty()) out.max = decimal_of(nlohmann::ordered_json::parse(max), exclusive);
  return out;
}

// Every small decimal against every pair of bounds, compared as numbers.
TEST(JsonTerminals, NumbersAreWithinTheirBounds) {
  std::vector<std::string> texts;
  for (int i = -1250; i <= 1250; ++i) texts.push_back(fmt::format("{:.2f}", i / 100.0));
  for (int i = -120; i <= 120; ++i) texts.push_back(std::to_string(i));
  for (const char* min : {"", "-12", "-1.25", "-1", "0", "0.07", "1", "9.5", "10"}) {
    for (const char* max : {"", "-11.99", "-0.5", "0", "0.1", "3", "9", "10.0", "100"}) {
      for (const bool exclusive : {false, true}) {
        const double low = *min ? std::stod(min) : -1e9, high = *max ? std::stod(max) : 1e9;
        if (low > high || (low == high && exclusive)) continue;
        const NumberBounds bounds = bounds_of(min, max, exclusive);
        const ByteDfa any = number_within(bounds);
        for (const std::string& text : texts) {
          const double value = std::stod(text);
          const bool within = exclusive ? (!*min || value > low) && (!*max || value < high)
                                        : value >= low && value <= high;
          const bool negative_zero = value == 0 && text[0] == '-';
          EXPECT_EQ(accepts(any, text), within && !negative_zero)
              << min << ".." << max << " " << text << " " << exclusive;
        }
      }
    }
  }
}

TEST(JsonTerminals, IntegersAreExact) {
  const ByteDfa dfa = integer_within(bounds_of("-9007199254740993", "9007199254740993", false));
  EXPECT_TRUE(accepts(dfa, "9007199254740993"));
  EXPECT_FALSE(accepts(dfa, "9007199254740994"));
  EXPECT_TRUE(accepts(dfa, "-9007199254740993"));
  EXPECT_FALSE(accepts(dfa, "-9007199254740994"));
  EXPECT_FALSE(accepts(dfa, "1.0"));
  EXPECT_FALSE(accepts(dfa, "-0"));
  EXPECT_THROW(integer_within(bounds_of("1.2", "1.8", false)), ConfigError);
  EXPECT_THROW(integer_within(bounds_of("3", "2", false)), ConfigError);
  EXPECT_THROW(number_within(bounds_of("1e300", "", false)), ConfigError);
  EXPECT_NO_THROW(number_within(bounds_of("", "1e300", true)));
}

TEST(JsonTerminals, DecimalsKeepWhatIsWritten) {
  for (const auto& [text, whole, fraction] :
       std::vector<std::array<std::string, 3>>{{"12.50", "12", "5"},
                                               {"1e-7", "0", "0000001"},
                                               {"2.5e20", "250000000000000000000", ""},
                                               {"-0.0", "0", ""},
                                               {"0.1", "0", "1"}}) {
    const Decimal d = decimal_of(nlohmann::ordered_json::parse(text), false);
    EXPECT_EQ(d.whole, whole) << text;
    EXPECT_EQ(d.fraction, fraction) << text;
    EXPECT_FALSE(d.negative);
  }
}

TEST(JsonTerminals, OtherNamesAreOther) {
  const ByteDfa dfa = string_other_than({"a", "ab", "", "中"});
  for (const char* text : {"\"b\"", "\"abc\"", "\"aa\"", "\"丰\"", "\"中中\""})
    EXPECT_TRUE(accepts(dfa, text)) << text;
  for (const char* text : {"\"a\"", "\"ab\"", "\"\"", "\"中\"", "\"\\u0061\""})
    EXPECT_FALSE(accepts(dfa, text)) << text;
}

}  // namespace
}  // namespace minke

#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "text/published_split.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace minke {
namespace {

using nlohmann::json;
using Pieces = std::vector<std::string>;

Pieces split(const PreTokenizer& pre_tokenizer, std::string_view text) {
  Pieces out;
  pre_tokenizer.split(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

PreTokenizer published_by_regex() {
  std::vector<SplitRule> rules;
  for (const std::string_view pattern : kPublishedPatterns)
    rules.push_back({std::string(pattern), SplitBehavior::Isolated});
  return PreTokenizer::from_rules(rules);
}

Pieces one_rule(SplitBehavior behavior, std::string pattern, std::string_view text,
                bool invert = false) {
  return split(PreTokenizer::from_rules({{std::move(pattern), behavior, invert}}), text);
}

TEST(UnicodeClass, KnowsUnicode16) {
  EXPECT_EQ(unicode_class('a'), UnicodeClass::Letter);
  EXPECT_EQ(unicode_class(0x301), UnicodeClass::Mark);
  EXPECT_EQ(unicode_class('7'), UnicodeClass::Number);
  EXPECT_EQ(unicode_class(0x3002), UnicodeClass::Punctuation);
  EXPECT_EQ(unicode_class('$'), UnicodeClass::Symbol);
  EXPECT_EQ(unicode_class(0x1C80), UnicodeClass::Letter);
  EXPECT_EQ(unicode_class(0x105C0), UnicodeClass::Letter);  // Todhri, new in 16.0
  EXPECT_EQ(unicode_class(0x1C89), UnicodeClass::Letter);   // new in 16.0
  EXPECT_EQ(unicode_class(0x10FFFF), UnicodeClass::Other);
  EXPECT_EQ(unicode_class(0xFFFFFFFF), UnicodeClass::Other);
  Pieces spaces;
  std::vector<std::uint32_t> found;
  for (std::uint32_t c = 0; c < 0x110000; ++c)
    if (unicode_class(c) == UnicodeClass::Space) found.push_back(c);
  EXPECT_EQ(found, (std::vector<std::uint32_t>{
                       0x9,    0xA,    0xB,    0xC,    0xD,    0x20,   0x85,   0xA0,   0x1680,
                       0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                       0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}));
}

TEST(PublishedSplit, CutsAsThePatternsSay) {
  const PreTokenizer p = PreTokenizer::published();
  EXPECT_EQ(split(p, "12345"), (Pieces{"123", "45"}));
  EXPECT_EQ(split(p, "Hello, world!"), (Pieces{"Hello", ",", " world", "!"}));
  EXPECT_EQ(split(p, "it's 你好x"), (Pieces{"it", "'s", " ", "你好", "x"}));
  EXPECT_EQ(split(p, "a  \n\n  b"), (Pieces{"a", "  \n\n", " ", " b"}));
  EXPECT_EQ(split(p, "a   7"), (Pieces{"a", "   ", "7"}));
  EXPECT_EQ(split(p, " !?\r\n\nx"), (Pieces{" !?\r\n\n", "x"}));
  EXPECT_EQ(split(p,
                  "\x01\x01"
                  "a"),
            (Pieces{"\x01",
                    "\x01"
                    "a"}));
  EXPECT_EQ(split(p, "\x01\x02"), (Pieces{"\x01\x02"}));
  EXPECT_EQ(split(p, "キー゜丌・x"),
            (Pieces{"キー", "゜", "丌", "・", "x"}));  // the third pattern too
  EXPECT_EQ(split(p, ""), Pieces{});
}

// PCRE2 of Debian 12 has Unicode 14: the code points where it classes differently are left out.
TEST(PublishedSplit, AgreesWithRegularExpressionsOnRandomTexts) {
  std::vector<UnicodeClass> by_regex(0x110000, UnicodeClass::Other);
  SplitRegex::Scratch scratch;
  std::string all;
  for (std::uint32_t c = 0; c < 0x110000; ++c)
    if (c < 0xD800 || c >= 0xE000) append_utf8(all, c);
  for (const auto& [pattern, kind] :
       {std::pair<const char*, UnicodeClass>{R"(\P{L}+)", UnicodeClass::Letter},
        {R"(\P{M}+)", UnicodeClass::Mark},
        {R"(\P{N}+)", UnicodeClass::Number},
        {R"(\P{P}+)", UnicodeClass::Punctuation},
        {R"(\P{S}+)", UnicodeClass::Symbol},
        {R"(\S+)", UnicodeClass::Space}}) {
    SplitRegex({pattern, SplitBehavior::Removed}).split(all, scratch, [&](std::string_view run) {
      for (std::size_t at = 0; at < run.size();) {
        const CodePoint p = code_point_at(run, at);
        by_regex[p.code] = kind;
        at += p.bytes;
      }
    });
  }
  std::vector<std::uint32_t> by_class[7], agreed;
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if ((c >= 0xD800 && c < 0xE000) || by_regex[c] != unicode_class(c)) continue;
    agreed.push_back(c);
    by_class[static_cast<int>(unicode_class(c))].push_back(c);
  }
  ASSERT_GT(agreed.size(), 1'090'000u);

  const PreTokenizer scanner = PreTokenizer::published(), regex = published_by_regex();
  ASSERT_TRUE(scanner.uses_scanner());
  ASSERT_FALSE(regex.uses_scanner());
  std::mt19937 random(11);
  const std::string_view common = "aZ 09 \n\r\t!'$_-\x01";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (int n = random() % 24; n > 0; --n) {
      const int choice = random() % 10;
      if (choice < 4) {
        text += common[random() % common.size()];
      } else if (choice < 5) {
        append_utf8(text, 0x3030 + random() % 0xE0);
      } else if (choice < 6) {
        append_utf8(text, random() % 2 ? 0x4DF0 + random() % 32 : 0x9F98 + random() % 24);
      } else {
        const auto& from = choice < 9 ? by_class[random() % 7] : agreed;
        append_utf8(text, from[random() % from.size()]);
      }
    }
    ASSERT_EQ(split(scanner, text), split(regex, text)) << json(text);
  }
}

TEST(SplitRegex, Behaviors) {
  EXPECT_EQ(one_rule(SplitBehavior::Isolated, "-", "a--b-"), (Pieces{"a", "-", "-", "b", "-"}));
  EXPECT_EQ(one_rule(SplitBehavior::Removed, "-", "a--b-"), (Pieces{"a", "b"}));
  EXPECT_EQ(one_rule(SplitBehavior::MergedWithPrevious, "-", "a--b-"), (Pieces{"a-", "-", "b-"}));
  EXPECT_EQ(one_rule(SplitBehavior::MergedWithNext, "-", "a--b-"), (Pieces{"a", "-", "-b", "-"}));
  EXPECT_EQ(one_rule(SplitBehavior::Contiguous, "-", "a--b-"), (Pieces{"a", "--", "b", "-"}));
  EXPECT_EQ(one_rule(SplitBehavior::Removed, "[a-z]", "a--b-", true), (Pieces{"a", "b"}));
  EXPECT_EQ(one_rule(SplitBehavior::Isolated, "x*", "axxyé"), (Pieces{"a", "xx", "y", "é"}));
  EXPECT_EQ(one_rule(SplitBehavior::Isolated, regex_of_literal("a.b"), "axba.b"),
            (Pieces{"axb", "a.b"}));
}

// Oniguruma's white space: U+0085 is, U+180E is not.
TEST(SplitRegex, WhiteSpaceIsTheProperty) {
  EXPECT_EQ(one_rule(SplitBehavior::Removed, R"(\s+)", "a\u0085b\u180Ec\u3000d"),
            (Pieces{"a", "b\u180Ec", "d"}));
  EXPECT_EQ(one_rule(SplitBehavior::Removed, R"([^\s]+)", "a\u180E "), (Pieces{" "}));
  EXPECT_EQ(one_rule(SplitBehavior::Removed, R"(\S+)", "a\u180E "), (Pieces{" "}));
}

TEST(SplitRegex, LongTextsNeedNoStack) {
  const std::string pattern = R"((?:a|b)+c|[^x]+?(?=x))";
  const std::string text(1 << 14, 'a');
  try {  // an answer or a refusal, but neither a crash nor an endless search
    (void)one_rule(SplitBehavior::Isolated, pattern, text);
  } catch (const FormatError& e) {
    EXPECT_NE(std::string(e.what()).find("gave up"), std::string::npos) << e.what();
  }
}

// The usual patterns look back at most once over a run, through PCRE2 as well.
TEST(SplitRegexTimed, IsLinearForTheUsualPatterns) {
  const PreTokenizer published = published_by_regex();
  const PreTokenizer other = PreTokenizer::from_rules(
      {{R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
        R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}});
  for (const char letter : std::string_view("a \n7!\t\x01")) {
    const std::string text(1 << 20, letter);
    for (const PreTokenizer* p : {&published, &other}) {
      const std::clock_t begin = std::clock();  // of the processor: others may be busy, too
      (void)split(*p, text);
      EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 2.0) << letter;
    }
  }
}

TEST(PreTokenizer, ReadsWhatTokenizerJsonSays) {
  json split_rules = json::array();
  for (const std::string_view pattern : kPublishedPatterns)
    split_rules.push_back({{"type", "Split"},
                           {"pattern", {{"Regex", pattern}}},
                           {"behavior", "Isolated"},
                           {"invert", false}});
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  json parts = split_rules;
  parts.push_back(bytes);
  const json sequence = {{"type", "Sequence"}, {"pretokenizers", parts}};
  EXPECT_TRUE(PreTokenizer::from_json(sequence).uses_scanner());
  EXPECT_EQ(split(PreTokenizer::from_json(bytes), "a b"), Pieces{"a b"});

  const json gpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  EXPECT_EQ(split(PreTokenizer::from_json(gpt2), "it's  a 12!"),
            (Pieces{"it", "'s", " ", " a", " 12", "!"}));

  const json digits = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Removed"}},
        bytes}}};
  EXPECT_EQ(split(PreTokenizer::from_json(digits), "a12.b"), (Pieces{"a", "1", "2", "b"}));

  const auto refused = [](json value, const std::string& fragment) {
    try {
      PreTokenizer::from_json(value);
      FAIL() << fragment;
    } catch (const FormatError& e) {
      EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
    }
  };
  refused({{"type", "Sequence"}, {"pretokenizers", split_rules}}, "no ByteLevel");
  refused({{"type", "Whitespace"}}, "'Whitespace'");
  refused({{"type", "Sequence"}}, "pre_tokenizer.pretokenizers");
  refused(3, "pre_tokenizer");
  json bad = sequence;
  bad["pretokenizers"][1]["behavior"] = "Sideways";
  refused(bad, "pre_tokenizer.pretokenizers[1].behavior");
  bad = sequence;
  bad["pretokenizers"][0]["pattern"] = {{"Regex", "(a"}};
  refused(bad, "does not compile");
  bad["pretokenizers"][0]["pattern"] = "a";
  refused(bad, "pre_tokenizer.pretokenizers[0].pattern");
}

}  // namespace
}  // namespace minke

#include "text/pattern.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"

namespace minke {
namespace {

ByteDfa compile(std::string_view pattern) {
  std::size_t work = 4'000'000;
  return compile_pattern(pattern, work);
}

bool matches(const ByteDfa& dfa, std::string_view text) {
  if (dfa.empty()) return false;
  ByteDfa::State state = 0;
  for (const char c : text) {
    state = dfa.next[state][static_cast<unsigned char>(c)];
    if (state == ByteDfa::kNone) return false;
  }
  return dfa.accepts[state];
}

struct Case {
  std::string pattern;
  std::vector<std::string> yes, no;
};

TEST(Pattern, AcceptsWhatItFinds) {
  const std::vector<Case> cases = {
      {"", {"", "anything"}, {}},
      {"ab", {"ab", "xxabyy", "aab"}, {"", "a", "ba"}},
      {"^ab", {"ab", "abc"}, {"xab"}},
      {"ab$", {"ab", "xab"}, {"abx"}},
      {"^(a|bc)*$", {"", "a", "bca", "abcbc"}, {"b", "ac"}},
      {"^a|b$", {"ax", "xb"}, {"xa", "bx"}},
      {"^[A-Z]{2}-\\d{2,3}$", {"AB-12", "XY-123"}, {"A-12", "AB-1", "AB-1234", "ab-12"}},
      {"^[^0-9]+?$", {"abc", "中文"}, {"", "a1"}},
      {"^.$", {"x", "中", "😀"}, {"", "ab", "\n"}},
      {"^[à-ü]$", {"é", "ü"}, {"e", "\xC3"}},
      {"^\\u4e2d\\x41\\.\\/$", {"中A./"}, {"中A_/"}},
      {"^(?:x{0,2}y){2}$", {"yy", "xyxxy"}, {"y", "xxxyy"}},
      {"^[\\w-]+@\\w+\\.[a-z]{2,}$", {"a-b@c.de"}, {"@c.de", "a@c.d"}},
      {"^(a*)*b$", {"b", "aaab"}, {"aaa"}},
      {"^[]a]", {}, {"a", "]", ""}},  // ECMA-262: [] holds nothing
      {"^[^]$", {"a", "\n"}, {"", "ab"}},
      {"a^b|c$d", {}, {"ab", "cd"}},
      {"$^", {""}, {"a", "ab"}},
  };
  for (const Case& c : cases) {
    const ByteDfa dfa = compile(c.pattern);
    for (const std::string& text : c.yes)
      EXPECT_TRUE(matches(dfa, text)) << c.pattern << " " << text;
    for (const std::string& text : c.no)
      EXPECT_FALSE(matches(dfa, text)) << c.pattern << " " << text;
  }
}

TEST(Pattern, NamesWhatIsNotSupported) {
  for (const auto& [pattern, named] :
       std::vector<std::pair<std::string, std::string>>{{"(?=a)", "look-around"},
                                                        {"(?<!a)b", "look-around"},
                                                        {"(?<name>a)", "(?<"},
                                                        {"(a)\\1", "back reference"},
                                                        {"\\bword", "\\b"},
                                                        {"\\p{L}", "\\p"},
                                                        {"a**", "repetition of a repetition"},
                                                        {"*a", "nothing to repeat"},
                                                        {"a{2,1}", "m > n"},
                                                        {"a{1001}", "above 1000"},
                                                        {"a{,3}", "{m}"},
                                                        {"(a", "without \")\""},
                                                        {"a)", "without \"(\""},
                                                        {"[a", "without \"]\""},
                                                        {"[z-a]", "range"},
                                                        {"[\\d-z]", "range"},
                                                        {"\\u12", "hexadecimal"},
                                                        {"a\\", "backslash"},
                                                        {"\xFF", "UTF-8"}}) {
    try {
      compile(pattern);
      FAIL() << pattern;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(named), std::string::npos)
          << pattern << ": " << e.what();
    }
  }
}

TEST(Pattern, AnyTextIsCompiledOrRefused) {
  std::mt19937 random(6);
  int compiled = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string pattern;
    for (int n = static_cast<int>(random() % 12); n >= 0; --n)
      pattern += "ab01(|)*+?{}[]^$.\\d,-2:wu\xC3\xA9"[random() % 28];
    try {
      compile(pattern);
      ++compiled;
    } catch (const ConfigError&) {
    }
  }
  EXPECT_GT(compiled, 1000);
}

TEST(PatternTimed, TrapsAreRefusedOrCompiledSoon) {
  const auto begin = std::chrono::steady_clock::now();
  std::string deep(1000, '('), wide = "^(";
  for (int i = 0; i < 400; ++i) wide += "a|";
  const std::vector<std::string> traps = {"(a{1000}){1000}",
                                          "((a{100}){100}){100}",
                                          "(.*a){1,30}.{20}",
                                          "(x+x+)+y",
                                          ".*a.{14}$",
                                          deep,
                                          wide + ")*b",
                                          "(\\w{1,50}\\s){1,50}",
                                          "[^a]{500}b|[^b]{500}a"};
  for (const std::string& trap : traps) {
    try {
      EXPECT_LT(compile(trap).size(), 4000u);
    } catch (const ConfigError&) {
    }
  }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr double kSeconds = 20;
#else
  constexpr double kSeconds = 2;  // 9 traps, a busy machine
#endif
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), kSeconds);
}

}  // namespace
}  // namespace minke

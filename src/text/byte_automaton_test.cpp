#include "text/byte_automaton.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "text/utf8.h"

namespace minke {
namespace {

bool accepts(const ByteDfa& dfa, std::string_view text) {
  if (dfa.empty()) return false;
  ByteDfa::State state = 0;
  for (const char c : text) {
    state = dfa.next[state][static_cast<unsigned char>(c)];
    if (state == ByteDfa::kNone) return false;
  }
  return dfa.accepts[state];
}

std::string utf8(std::uint32_t code) {
  std::string out;
  append_utf8(out, code);
  return out;
}

ByteDfa code_points(std::uint32_t first, std::uint32_t last) {
  ByteNfa nfa;
  const auto from = nfa.add_state(), to = nfa.add_state();
  nfa.add_code_points(from, first, last, to);
  std::size_t work = 1'000'000;
  return nfa.determinise(from, to, 1000, work).value();
}

TEST(ByteAutomaton, RangesOfCodePointsHoldWhatIsBetween) {
  const std::uint32_t edges[] = {0,      1,      0x3F,   0x40,    0x7F,    0x80,    0xBF,
                                 0xC0,   0x7FF,  0x800,  0xFFF,   0x1000,  0x2028,  0xD7FF,
                                 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x1F600, 0x3FFFF, 0x10FFFF};
  std::mt19937 random(1);
  for (const std::uint32_t first : edges) {
    for (const std::uint32_t last : edges) {
      if (first > last) continue;
      const ByteDfa dfa = code_points(first, last);
      for (const std::uint32_t code : edges)
        EXPECT_EQ(accepts(dfa, utf8(code)), first <= code && code <= last)
            << first << ".." << last << " " << code;
      for (int i = 0; i < 20; ++i) {
        const std::uint32_t code = random() % 0x110000;
        if (code >= 0xD800 && code < 0xE000) continue;
        EXPECT_EQ(accepts(dfa, utf8(code)), first <= code && code <= last)
            << first << ".." << last << " " << code;
      }
    }
  }
  EXPECT_TRUE(code_points(0xD800, 0xDFFF).empty());  // surrogates alone
  EXPECT_FALSE(accepts(code_points(0, 0x10FFFF), "\xED\xA0\x80"));
  EXPECT_FALSE(accepts(code_points(0, 0x10FFFF), "\xC0\x80"));
}

TEST(ByteAutomaton, TrimLeavesNoDeadEnd) {
  ByteDfa dfa;
  const auto start = dfa.add_state(false), end = dfa.add_state(true), dead = dfa.add_state(false);
  dfa.next[start]['a'] = end;
  dfa.next[start]['b'] = dead;
  dfa.next[dead]['b'] = dead;
  dfa.trim();
  EXPECT_EQ(dfa.size(), 2u);
  EXPECT_TRUE(accepts(dfa, "a"));
  EXPECT_EQ(dfa.next[0]['b'], ByteDfa::kNone);
  EXPECT_FALSE(dfa.final[0]);
  EXPECT_TRUE(dfa.final[1]);

  ByteDfa never;
  never.next.resize(1);
  never.accepts = {false};
  never.next[0].fill(0);
  never.trim();
  EXPECT_TRUE(never.empty());
}

// (a|b)*a(a|b)^n needs 2^n states.
TEST(ByteAutomaton, StopsAtItsLimits) {
  ByteNfa nfa;
  const auto start = nfa.add_state();
  nfa.add_bytes(start, 'a', 'b', start);
  auto at = nfa.add_state();
  nfa.add_bytes(start, 'a', 'a', at);
  for (int i = 0; i < 20; ++i) {
    const auto next = nfa.add_state();
    nfa.add_bytes(at, 'a', 'b', next);
    at = next;
  }
  std::size_t work = 1'000'000'000;
  EXPECT_FALSE(nfa.determinise(start, at, 1000, work));
  EXPECT_GT(work, 900'000'000u);
  work = 1000;
  EXPECT_FALSE(nfa.determinise(start, at, 60'000, work));
  EXPECT_EQ(work, 0u);
}

}  // namespace
}  // namespace minke

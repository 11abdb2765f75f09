// Random texts of a grammar, byte by byte, for tests.
#pragma once
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar_state.h"

namespace minke::test {

inline bool reads(GrammarState& state, std::string_view text) {
  for (const char c : text)
    if (!state.step(static_cast<std::uint8_t>(c))) return false;
  return true;
}

// Whether the whole text matches.
inline bool matches(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarState state(grammar);
  return reads(state, text) && state.complete();
}

// A text that the grammar accepts, or none after `limit` bytes. From a quarter of them on it looks
// for the end: closing marks before anything else. Calls visit(state) at every prefix; a prefix
// that can neither go on nor end is returned as the text "DEAD END: ...".
template <class Visit>
std::optional<std::string> random_text(const std::shared_ptr<const Grammar>& grammar,
                                       std::mt19937& random, std::size_t limit,
                                       const Visit& visit) {
  GrammarState state(grammar);
  std::string text;
  while (text.size() < limit) {
    visit(state);
    const bool hurry = text.size() > limit / 4;
    if (state.complete() && (hurry || random() % 2)) return text;
    std::vector<std::uint8_t> preferred;
    if (hurry || random() % 4 == 0) preferred = {'"', '}', ']', ':', '0', 'a', 'n'};
    const std::uint8_t first = static_cast<std::uint8_t>(random());
    for (int i = 0; i < 256; ++i)  // printable ones more often than their share
      preferred.push_back(
          static_cast<std::uint8_t>(i < 128 && random() % 2 ? 0x20 + random() % 95 : first + i));
    for (int i = 0; i < 256; ++i) preferred.push_back(static_cast<std::uint8_t>(i));
    bool moved = false;
    for (const std::uint8_t byte : preferred) {
      GrammarState next = state;
      if (!next.step(byte)) continue;
      state = std::move(next);
      text += static_cast<char>(byte);
      moved = true;
      break;
    }
    if (!moved) return state.complete() ? text : "DEAD END: " + text;
  }
  return std::nullopt;
}

}  // namespace minke::test

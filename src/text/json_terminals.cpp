#include "text/json_terminals.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::size_t kMostStates = 4096;  // of a pattern with its lengths
constexpr std::uint32_t kFirstPrintable = 0x20;

using State = ByteDfa::State;

struct ShortEscape {
  char letter;
  unsigned char byte;
};
constexpr ShortEscape kShortEscapes[] = {{'"', '"'},  {'\\', '\\'}, {'b', '\b'}, {'f', '\f'},
                                         {'n', '\n'}, {'r', '\r'},  {'t', '\t'}};

bool is_short_escape(int byte) {
  return std::any_of(std::begin(kShortEscapes), std::end(kShortEscapes),
                     [&](const ShortEscape& e) { return e.byte == byte; });
}

bool begins_code_point(int byte) {
  return (byte & 0xC0) != 0x80;
}

void add_hexadecimal(ByteNfa& nfa, ByteNfa::State from, std::string_view digits,
                     ByteNfa::State to) {
  for (const char c : digits) {
    const auto byte = static_cast<std::uint8_t>(c);
    nfa.add_bytes(from, byte, byte, to);
  }
}

constexpr std::string_view kHexadecimal = "0123456789abcdefABCDEF";

// from -> \u -> the digits of each set -> to
void add_unicode_escape(ByteNfa& nfa, ByteNfa::State from,
                        const std::array<std::string_view, 4>& digits, ByteNfa::State to) {
  const ByteNfa::State backslash = nfa.add_state();
  ByteNfa::State at = nfa.add_state();
  nfa.add_bytes(from, '\\', '\\', backslash);
  nfa.add_bytes(backslash, 'u', 'u', at);
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const ByteNfa::State next = i + 1 == digits.size() ? to : nfa.add_state();
    add_hexadecimal(nfa, at, digits[i], next);
    at = next;
  }
}

StringDfa make_any_string() {
  ByteNfa nfa;
  const ByteNfa::State start = nfa.add_state(), inside = nfa.add_state(), end = nfa.add_state();
  nfa.add_bytes(start, '"', '"', inside);
  nfa.add_bytes(inside, '"', '"', end);
  nfa.add_code_points(inside, 0x20, 0x21, inside);
  nfa.add_code_points(inside, 0x23, 0x5B, inside);
  nfa.add_code_points(inside, 0x5D, 0x10FFFF, inside);
  const ByteNfa::State escape = nfa.add_state();
  nfa.add_bytes(inside, '\\', '\\', escape);
  nfa.add_bytes(escape, '/', '/', inside);
  for (const ShortEscape& e : kShortEscapes) {
    const auto letter = static_cast<std::uint8_t>(e.letter);
    nfa.add_bytes(escape, letter, letter, inside);
  }
  constexpr std::string_view kAll = kHexadecimal;
  add_unicode_escape(nfa, inside, {"0123456789abcefABCEF", kAll, kAll, kAll}, inside);
  add_unicode_escape(nfa, inside, {"dD", "01234567", kAll, kAll}, inside);
  const ByteNfa::State low = nfa.add_state();  // behind the first half of a pair
  add_unicode_escape(nfa, inside, {"dD", "89abAB", kAll, kAll}, low);
  add_unicode_escape(nfa, low, {"dD", "cdefCDEF", kAll, kAll}, inside);
  std::size_t work = 1'000'000;
  StringDfa out{nfa.determinise(start, end, 256, work).value(), 0};
  out.inside = out.dfa.next[0]['"'];
  return out;
}

// Pairs of a state and the code points so far, as far as they matter.
class LengthProduct {
 public:
  LengthProduct(const ByteDfa& dfa, LengthBounds length, std::size_t& work)
      : dfa_(dfa), length_(length), most_(length.max.value_or(length.min)), work_(work) {}

  ByteDfa build() {
    name(0, 0);
    for (std::size_t s = 0; s < pairs_.size(); ++s) {
      const auto [state, count] = pairs_[s];
      if (work_ < 256) too_complex();
      work_ -= 256;
      int last = 0;
      std::pair<State, std::uint32_t> last_pair;
      for (int byte = 0; byte < 256; ++byte) {
        const State to = dfa_.next[state][byte];
        if (to == ByteDfa::kNone) continue;
        const bool begins = begins_code_point(byte);
        if (begins && length_.max && count == *length_.max) continue;
        // Runs of bytes lead to the same state: most need no look-up.
        const std::pair<State, std::uint32_t> pair{to, std::min(count + (begins ? 1 : 0), most_)};
        const bool again = out_.next[s][last] != ByteDfa::kNone && pair == last_pair;
        out_.next[s][byte] = again ? out_.next[s][last] : name(pair.first, pair.second);
        last = byte;
        last_pair = pair;
      }
    }
    out_.trim();
    return std::move(out_);
  }

 private:
  [[noreturn]] static void too_complex() {
    throw ConfigError("the pattern with these lengths is too complex; leave out one of them");
  }
  State name(State state, std::uint32_t count) {
    const auto [it, added] = names_.try_emplace({state, count}, static_cast<State>(pairs_.size()));
    if (!added) return it->second;
    if (pairs_.size() >= kMostStates) too_complex();
    pairs_.emplace_back(state, count);
    return out_.add_state(dfa_.accepts[state] && count >= length_.min);
  }

  const ByteDfa& dfa_;
  LengthBounds length_;
  std::uint32_t most_;  // larger counts are all alike
  std::size_t& work_;
  std::vector<std::pair<State, std::uint32_t>> pairs_;
  std::map<std::pair<State, std::uint32_t>, State> names_;
  ByteDfa out_;
};

// Adds what leads by an escape from one state of the content to others: \" \\ \n .. and \u00XX for
// the control characters that have no letter.
void add_escapes(ByteDfa& out, State from, const std::array<State, 256>& content) {
  const State escape = out.add_state(false);
  out.next[from]['\\'] = escape;
  for (const ShortEscape& e : kShortEscapes)
    out.next[escape][static_cast<unsigned char>(e.letter)] = content[e.byte];
  const State u = out.add_state(false), zero = out.add_state(false), zeros = out.add_state(false);
  out.next[escape]['u'] = u;
  out.next[u]['0'] = zero;
  out.next[zero]['0'] = zeros;
  for (const int high : {0, 1}) {
    const State digit = out.add_state(false);
    out.next[zeros]['0' + high] = digit;
    for (int low = 0; low < 16; ++low)
      if (!is_short_escape(high * 16 + low))
        out.next[digit]["0123456789abcdef"[low]] = content[high * 16 + low];
  }
}

bool needs_escape(const std::array<State, 256>& row) {
  const auto exists = [](State s) { return s != ByteDfa::kNone; };
  return std::any_of(row.begin(), row.begin() + kFirstPrintable, exists) || exists(row['"']) ||
         exists(row['\\']);
}

// The JSON text of the strings whose content `content` accepts.
ByteDfa quoted(const ByteDfa& content) {
  ByteDfa out;
  const State start = out.add_state(false);
  // State s of the content is s + 1 here.
  const auto moved = [](State s) { return s == ByteDfa::kNone ? s : static_cast<State>(s + 1); };
  for (std::size_t s = 0; s < content.size(); ++s) out.add_state(false);
  const State end = out.add_state(true);
  out.next[start]['"'] = 1;
  for (std::size_t s = 0; s < content.size(); ++s) {
    std::array<State, 256> row = content.next[s];
    for (State& to : row) to = moved(to);
    const State at = moved(static_cast<State>(s));
    for (std::size_t byte = kFirstPrintable; byte < 256; ++byte)
      if (byte != '"' && byte != '\\') out.next[at][byte] = row[byte];
    if (content.accepts[s]) out.next[at]['"'] = end;
    if (needs_escape(row)) add_escapes(out, at, row);
  }
  out.trim();
  return out;
}

}  // namespace

const StringDfa& any_string() {
  static const StringDfa dfa = make_any_string();
  return dfa;
}

std::string json_quoted(std::string_view text) {
  return nlohmann::json(text).dump();
}

ByteDfa string_matching(const ByteDfa& content, LengthBounds length, std::size_t& work) {
  ByteDfa text = content;
  if (!text.empty() && (length.min > 0 || length.max))
    text = LengthProduct(content, length, work).build();
  if (text.size() > kMostStates)
    throw ConfigError("the pattern is too complex; use fewer or smaller repetitions");
  if (text.empty()) throw ConfigError("no string matches the pattern and the lengths");
  return quoted(text);
}

// A tree of the names; what leaves it, or ends inside it, is another string.
ByteDfa string_other_than(const std::vector<std::string>& names) {
  ByteDfa out = any_string().dfa;
  const State inside = any_string().inside;
  out.next[inside]['\\'] = ByteDfa::kNone;
  const State root = out.add_state(false);
  out.next[0]['"'] = root;
  out.next[root] = out.next[inside];
  for (const std::string& name : names) {
    const std::string quoted_name = json_quoted(name);
    State at = root;
    State other = inside;  // where a string that is none of the names would be
    for (std::size_t i = 1; i + 1 < quoted_name.size(); ++i) {
      const auto byte = static_cast<unsigned char>(quoted_name[i]);
      other = out.next[other][byte];
      if (other == ByteDfa::kNone) break;  // has an escape: it cannot be written here anyway
      if (out.next[at][byte] == other) {
        const State added = out.add_state(false);
        out.next[added] = out.next[other];
        out.next[at][byte] = added;
      }
      at = out.next[at][byte];
    }
    if (other != ByteDfa::kNone) out.next[at]['"'] = ByteDfa::kNone;
  }
  out.trim();
  return out;
}

}  // namespace minke

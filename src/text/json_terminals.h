// The parts of JSON that have no nesting, as automata over the bytes of the JSON text: strings with
// their quotes and escapes, numbers. All are valid UTF-8 and standard JSON (RFC 8259).
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_automaton.h"

namespace minke {

// A string whose states count code points: where `counts` is set a code point (or, with the quote,
// the end) begins. Any escape may be used, surrogates only in pairs.
struct StringDfa {
  ByteDfa dfa;
  ByteDfa::State inside;  // the one state where a code point may begin
};
const StringDfa& any_string();

// The bytes of text between quotes, as a generator writes them: what needs no escape has none.
std::string json_quoted(std::string_view text);

struct LengthBounds {
  std::uint32_t min = 0;
  std::optional<std::uint32_t> max;  // both in code points
};

// Strings whose text `content` accepts (over UTF-8), within `length`. Only what cannot stand as it
// is has an escape. `work` is counted down as by compile_pattern. Throws ConfigError when there is
// no such string, or the automaton is too large.
ByteDfa string_matching(const ByteDfa& content, LengthBounds length, std::size_t& work);

// Strings that are none of `names`, without escapes.
ByteDfa string_other_than(const std::vector<std::string>& names);

// A bound as the schema writes it: its shortest decimal form, exactly.
struct Decimal {
  bool negative = false;
  std::string whole = "0";  // no leading zeros
  std::string fraction;     // no trailing zeros
  bool exclusive = false;
};
// `value` is a JSON number.
Decimal decimal_of(const nlohmann::ordered_json& value, bool exclusive);

bool is_below(const Decimal& a, const Decimal& b);

struct NumberBounds {
  std::optional<Decimal> min, max;
};

// Numbers within the bounds, compared digit by digit. So that they end, and mean the same to every
// reader: at most 18 digits before the point and 17 behind it (15 in all beside an exclusive
// bound), an exponent only without bounds and of at most two digits, no -0. Throws ConfigError when
// no such number is within the bounds.
ByteDfa integer_within(const NumberBounds& bounds);
ByteDfa number_within(const NumberBounds& bounds);

}  // namespace minke

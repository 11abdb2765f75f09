// Regular expressions of JSON Schema's `pattern` as automata: time and memory are bounded when they
// are compiled, and matching never goes back.
#pragma once
#include <string_view>

#include "text/byte_automaton.h"

namespace minke {

// The automaton (over UTF-8) of all texts in which `pattern` is found somewhere; ^ and $ bind it to
// the begin and the end. Understood: literals, . (no line break), [..], | and groups, * + ? {m,n}
// also lazy, \d \w \s \D \W \S \t \n \r \f \v \0 \xHH \uHHHH and escaped punctuation. Throws
// ConfigError naming what is not (look-around, back references, \b, \p) and what is too large; the
// caller adds where it stood. The result may be empty: no text matches. `work` is what may be spent
// (ByteNfa::determinise) and is counted down.
ByteDfa compile_pattern(std::string_view pattern, std::size_t& work);

}  // namespace minke

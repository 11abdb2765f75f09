// The syntax of regular expressions as JSON Schema's `pattern` uses them (a part of ECMA-262).
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/byte_automaton.h"

namespace minke {

struct CodePointRange {
  std::uint32_t first, last;
};

struct PatternNode {
  enum class Kind : std::uint8_t { Characters, Assertion, Sequence, Alternatives, Repetition };
  static constexpr std::uint32_t kMany = ~std::uint32_t{0};

  Kind kind;
  std::vector<CodePointRange> characters = {};  // one of them
  ByteNfa::When when = ByteNfa::When::Always;   // of an assertion: ^ or $
  std::uint32_t min = 1, max = 1;               // of a repetition of parts[0]
  std::vector<PatternNode> parts = {};
};

// Throws ConfigError naming what is not supported and the byte where it stands: look-around, back
// references, \b, \p, groups with names; more than 1000 repetitions, 32 levels or 2048 bytes.
PatternNode parse_pattern(std::string_view pattern);

}  // namespace minke

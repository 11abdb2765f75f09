// General category classes of Unicode 16, as split patterns use them: \p{L} \p{M} \p{N} \p{P} \p{S}
// and \s (the property White_Space; it overlaps none of the others).
#pragma once
#include <cstdint>

namespace minke {

enum class UnicodeClass : std::uint8_t {
  Other,
  Letter,
  Mark,
  Number,
  Punctuation,
  Symbol,
  Space,
};

namespace unicode {  // tables in unicode_class.cpp, written by tools/unicode_tables.mjs
extern const std::uint32_t kBlockCount;
extern const std::uint8_t kBlockNumber[];
extern const std::uint64_t kBlocks[][8];
}  // namespace unicode

// Any 32-bit value is allowed; what is not a code point is Other.
inline UnicodeClass unicode_class(std::uint32_t code) {
  const std::uint32_t block = code >> 7;
  if (block >= unicode::kBlockCount) return UnicodeClass::Other;
  const std::uint64_t word = unicode::kBlocks[unicode::kBlockNumber[block]][(code >> 4) & 7];
  return static_cast<UnicodeClass>(word >> (4 * (code & 15)) & 15);
}

}  // namespace minke

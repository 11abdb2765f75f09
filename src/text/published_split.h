// DeepSeek-V3's split patterns as one pass over the text.
//   1. \p{N}{1,3}                      from the left: 12345 -> 123, 45
//   2. [一-龥぀-ゟ゠-ヿ]+               U+4E00-9FA5, U+3040-30FF
//   3. [ASCII punctuation][A-Za-z]+ | [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+ | ?[\p{P}\p{S}]+[\r\n]*
//      | \s*[\r\n]+ | \s+(?!\S) | \s+
// Each pattern splits the pieces of the one before, its matches too (so kana are cut at ・ and ゜);
// matches are pieces of their own, and so is what matches nothing. Linear in the text. Unicode 16.
#pragma once
#include <array>
#include <string_view>

#include "base/function_ref.h"

namespace minke {

// As tokenizer.json writes them.
extern const std::array<std::string_view, 3> kPublishedPatterns;

// `text` must be valid UTF-8. Pieces are not empty and come in order; together they are the text.
void split_published(std::string_view text, FunctionRef<void(std::string_view)> piece);

}  // namespace minke

// UTF-8: checking, stepping through, and making whole what is broken.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace minke {

inline constexpr std::size_t kValidUtf8 = static_cast<std::size_t>(-1);

// Byte offset of the first byte that does not begin or continue a well-formed sequence (no
// surrogates, no overlong forms, at most U+10FFFF), or kValidUtf8.
std::size_t find_invalid_utf8(std::string_view text);

// Throws FormatError naming `what` and the byte offset.
void require_utf8(std::string_view text, std::string_view what);

struct CodePoint {
  std::uint32_t code;
  std::uint32_t bytes;  // 1 to 4
};

// The code point at text[at]; the text must be valid and `at` must be the beginning of one.
inline CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i]));
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

void append_utf8(std::string& out, std::uint32_t code);

// Moves what is decided of `pending` to the end of `out`: well-formed sequences as they are, every
// maximal invalid part as one U+FFFD. What may still become a sequence (at most three bytes) stays.
void take_utf8(std::string& pending, std::string& out);

// The same for the end of the text: what stays incomplete is one U+FFFD.
void finish_utf8(std::string& pending, std::string& out);

}  // namespace minke

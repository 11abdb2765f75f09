// The printable stand-ins of bytes that byte-level vocabularies are written in: printable ASCII and
// Latin-1 stand for themselves, the other bytes in order for U+0100 and on (space is U+0120).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace minke {

// Code point that stands for a byte.
std::uint32_t stand_in(unsigned char byte);

// bytes -> stand-ins, UTF-8.
std::string to_stand_ins(std::string_view bytes);

// The bytes for which valid UTF-8 text stands, or nothing when some code point is no stand-in.
std::optional<std::string> from_stand_ins(std::string_view text);

}  // namespace minke

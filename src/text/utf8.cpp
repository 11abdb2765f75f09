#include "text/utf8.h"

#include <fmt/format.h>

#include <cstring>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Sequence {
  std::size_t bytes;  // of the well-formed sequence, or of the maximal invalid part
  enum { Valid, Invalid, Incomplete } state;
};

// Table 3-7 of the Unicode standard: only the second byte's range depends on the first one.
Sequence sequence_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {1, Sequence::Valid};
  if (first < 0xC2 || first > 0xF4) return {1, Sequence::Invalid};
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {i, Sequence::Incomplete};
    if (i == 1 ? byte(1) < low || byte(1) > high : (byte(i) & 0xC0) != 0x80)
      return {i, Sequence::Invalid};
  }
  return {length, Sequence::Valid};
}

// Offset of the first byte at or after `at` that is not ASCII.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; (at = skip_ascii(text, at)) < text.size();) {
    const Sequence s = sequence_at(text, at);
    if (s.state != Sequence::Valid) return at;
    at += s.bytes;
  }
  return kValidUtf8;
}

void require_utf8(std::string_view text, std::string_view what) {
  const std::size_t at = find_invalid_utf8(text);
  if (at == kValidUtf8) return;
  throw FormatError(fmt::format(
      "{} is not UTF-8: byte {} is 0x{:02X}, which begins no valid sequence there; convert it to "
      "UTF-8",
      what, at, static_cast<unsigned char>(text[at])));
}

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

void take_utf8(std::string& pending, std::string& out) {
  std::size_t at = 0;
  while (at < pending.size()) {
    const Sequence s = sequence_at(pending, at);
    if (s.state == Sequence::Incomplete) break;
    out.append(s.state == Sequence::Valid ? std::string_view(pending).substr(at, s.bytes)
                                          : kReplacement);
    at += s.bytes;
  }
  pending.erase(0, at);
}

void finish_utf8(std::string& pending, std::string& out) {
  take_utf8(pending, out);
  if (!pending.empty()) out += kReplacement;
  pending.clear();
}

}  // namespace minke

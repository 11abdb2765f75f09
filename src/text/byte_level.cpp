#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace minke {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::uint32_t kStandIns = 0x144;  // one more than the largest

struct Tables {
  std::array<std::uint16_t, 256> stand_in{};
  std::array<std::int16_t, kStandIns> byte{};
};

constexpr Tables make_tables() {
  Tables t;
  for (std::int16_t& b : t.byte) b = -1;
  std::uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto code = static_cast<std::uint16_t>(stands_for_itself(byte) ? byte : next++);
    t.stand_in[byte] = code;
    t.byte[code] = static_cast<std::int16_t>(byte);
  }
  return t;
}

constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t stand_in(unsigned char byte) {
  return kTables.stand_in[byte];
}

std::string to_stand_ins(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, stand_in(static_cast<unsigned char>(byte)));
  return out;
}

std::optional<std::string> from_stand_ins(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto [code, bytes] = code_point_at(text, at);
    if (code >= kStandIns || kTables.byte[code] < 0) return std::nullopt;
    out.push_back(static_cast<char>(kTables.byte[code]));
    at += bytes;
  }
  return out;
}

}  // namespace minke

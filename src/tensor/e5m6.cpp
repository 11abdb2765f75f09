#include "tensor/e5m6.h"

#include <bit>
#include <cmath>
#include <limits>

namespace minke {

E5M6::E5M6(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((u >> 20) & 0x800u);
  const std::uint32_t magnitude = u & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    code = sign | 0x7FFu;
  } else if (magnitude >= std::bit_cast<std::uint32_t>(kLargestE5M6)) {
    code = sign | 0x7FEu;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: multiples of 2^-20
    code = sign | static_cast<std::uint16_t>(
                      std::nearbyint(std::ldexp(std::bit_cast<float>(magnitude), 20)));
  } else {
    const std::uint32_t rounded = magnitude + 0xFFFFu + ((magnitude >> 17) & 1u);
    code = sign | static_cast<std::uint16_t>((rounded >> 17) - (112u << 6));
  }
}

E5M6::operator float() const {
  const int exponent = (code >> 6) & 31, mantissa = code & 63;
  float value;
  if ((code & 0x7FFu) == 0x7FFu)
    value = std::numeric_limits<float>::quiet_NaN();
  else if (exponent == 0)
    value = std::ldexp(static_cast<float>(mantissa), -20);
  else
    value = std::ldexp(static_cast<float>(64 + mantissa), exponent - 21);
  return code & 0x800u ? -value : value;
}

void pack_e5m6(std::span<const std::uint16_t> codes, std::uint8_t* bytes) {
  std::size_t i = 0;
  for (; i + 1 < codes.size(); i += 2, bytes += 3) {
    const std::uint32_t both = codes[i] | std::uint32_t{codes[i + 1]} << 12;
    bytes[0] = static_cast<std::uint8_t>(both);
    bytes[1] = static_cast<std::uint8_t>(both >> 8);
    bytes[2] = static_cast<std::uint8_t>(both >> 16);
  }
  if (i == codes.size()) return;
  bytes[0] = static_cast<std::uint8_t>(codes[i]);
  bytes[1] = static_cast<std::uint8_t>(codes[i] >> 8);
}

void unpack_e5m6(const std::uint8_t* bytes, std::span<std::uint16_t> codes) {
  std::size_t i = 0;
  for (; i + 1 < codes.size(); i += 2, bytes += 3) {
    codes[i] = static_cast<std::uint16_t>(bytes[0] | (bytes[1] & 0xFu) << 8);
    codes[i + 1] = static_cast<std::uint16_t>(bytes[1] >> 4 | bytes[2] << 4);
  }
  if (i < codes.size()) codes[i] = static_cast<std::uint16_t>(bytes[0] | (bytes[1] & 0xFu) << 8);
}

}  // namespace minke

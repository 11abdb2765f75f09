// E5M6: 1-5-6 in 12 bits, bias 15, for the cached input of the linear after attention (the report,
// 3.3.3), which needs more than E4M3's three bits of mantissa. The report names the format alone;
// here, as in E4M3, there is no infinity: 0x7FF and 0xFFF are NaN, the largest value is 129024
// (2^16 * 126/64), and below 2^-14 values are multiples of 2^-20.
//
// Rounding is to nearest even and saturates at the largest value, infinity included.
#pragma once
#include <cstdint>
#include <span>

namespace minke {

struct E5M6 {
  std::uint16_t code = 0;  // 12 bits: sign, exponent, mantissa
  E5M6() = default;
  explicit E5M6(float value);
  operator float() const;
};
inline constexpr float kLargestE5M6 = 129024.0f;

// Two codes in three bytes, the earlier one in the low 12 bits; a last odd one takes two bytes.
constexpr std::int64_t packed_e5m6_bytes(std::int64_t n) {
  return (3 * n + 1) / 2;
}
// codes [n] -> bytes [packed_e5m6_bytes(n)], and back.
void pack_e5m6(std::span<const std::uint16_t> codes, std::uint8_t* bytes);
void unpack_e5m6(const std::uint8_t* bytes, std::span<std::uint16_t> codes);

}  // namespace minke

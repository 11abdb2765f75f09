#include "tensor/dtype.h"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace minke {
namespace {

constexpr std::array<std::pair<std::string_view, std::size_t>, 13> kTypes = {{
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1},
}};

}  // namespace

std::size_t size_of(DType dtype) { return kTypes[static_cast<std::size_t>(dtype)].second; }
std::string_view name_of(DType dtype) { return kTypes[static_cast<std::size_t>(dtype)].first; }

bool parse_dtype(std::string_view name, DType& dtype) {
  for (std::size_t i = 0; i < kTypes.size(); ++i)
    if (kTypes[i].first == name) return dtype = static_cast<DType>(i), true;
  return false;
}

F16::operator float() const {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1Fu, mantissa = bits & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

E4M3::E4M3(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const std::uint8_t sign = static_cast<std::uint8_t>((u >> 24) & 0x80u);
  const std::uint32_t magnitude = u & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    code = sign | 0x7Fu;
  } else if (magnitude >= 0x43E00000u) {  // 448 and beyond
    code = sign | 0x7Eu;
  } else if (magnitude < 0x3C800000u) {  // below 2^-6: multiples of 2^-9
    const float steps = std::nearbyint(std::bit_cast<float>(magnitude) * 512.0f);
    code = sign | static_cast<std::uint8_t>(steps);
  } else {
    const std::uint32_t rounded = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u);
    code = sign | static_cast<std::uint8_t>((rounded >> 20) - (120u << 3));
  }
}

E4M3::operator float() const {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  float value;
  if (exponent == 15 && mantissa == 7)
    value = std::numeric_limits<float>::quiet_NaN();
  else if (exponent == 0)
    value = std::ldexp(static_cast<float>(mantissa), -9);
  else
    value = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -value : value;
}

UE8M0 UE8M0::round_up(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  std::uint32_t exponent = u >> 23;
  if (exponent == 0) {  // denormal: 2^-127 is code 0, 2^-126 is code 1
    UE8M0 scale;
    scale.code = (u & 0x7FFFFFu) > 0x400000u ? 1 : 0;
    return scale;
  }
  if (u & 0x7FFFFFu) ++exponent;
  UE8M0 scale;
  scale.code = static_cast<std::uint8_t>(exponent > 254 ? 254 : exponent);
  return scale;
}

UE8M0::operator float() const {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, static_cast<int>(code) - 127);
}

}  // namespace minke

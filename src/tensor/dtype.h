// Element types, and the exact conversions between FP32 and the narrow floating-point types.
//
// BF16    1-8-7, round to nearest even, NaN stays NaN (made quiet), overflow to infinity.
// E4M3    `float8_e4m3fn`: 1-4-3, bias 7, no infinity, 0x7F and 0xFF are NaN, largest value 448;
//         rounding to nearest even, values beyond the range (infinity included) saturate at 448.
// UE8M0   an exponent alone: 2^(code - 127), 255 is NaN (the scales of microscaling formats).
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace minke {

enum class DType : std::uint8_t {
  F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, I64, I32, I16, I8, U8, Bool
};

// Bytes of one element.
std::size_t size_of(DType dtype);
// The name in safetensors files: "F32", "BF16", "F8_E4M3", ...
std::string_view name_of(DType dtype);
// The inverse of name_of; false when the name is unknown.
bool parse_dtype(std::string_view name, DType& dtype);

struct BF16 {
  std::uint16_t bits = 0;
  BF16() = default;
  explicit BF16(float value);
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};
struct F16 {
  std::uint16_t bits = 0;
  operator float() const;
};
struct E4M3 {
  std::uint8_t code = 0;
  E4M3() = default;
  explicit E4M3(float value);
  operator float() const;
};
struct UE8M0 {
  std::uint8_t code = 0;
  UE8M0() = default;
  // The smallest power of two that is not below `value` (which must be positive and finite).
  static UE8M0 round_up(float value);
  operator float() const;
};

inline BF16::BF16(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u)
    bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);
  else
    bits = static_cast<std::uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

inline float round_to_bf16(float value) { return BF16(value); }

template <class T> struct DTypeOf;
template <> struct DTypeOf<double> { static constexpr DType value = DType::F64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::F32; };
template <> struct DTypeOf<F16> { static constexpr DType value = DType::F16; };
template <> struct DTypeOf<BF16> { static constexpr DType value = DType::BF16; };
template <> struct DTypeOf<E4M3> { static constexpr DType value = DType::F8_E4M3; };
template <> struct DTypeOf<UE8M0> { static constexpr DType value = DType::F8_E8M0; };
template <> struct DTypeOf<std::int64_t> { static constexpr DType value = DType::I64; };
template <> struct DTypeOf<std::int32_t> { static constexpr DType value = DType::I32; };
template <> struct DTypeOf<std::uint8_t> { static constexpr DType value = DType::U8; };
template <class T>
inline constexpr DType dtype_of = DTypeOf<std::remove_const_t<T>>::value;

}  // namespace minke

#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace minke {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

E4M3 e4m3(int code) {
  E4M3 e;
  e.code = static_cast<std::uint8_t>(code);
  return e;
}

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::Bool); ++i) {
    DType parsed = DType::F64;
    ASSERT_TRUE(parse_dtype(name_of(static_cast<DType>(i)), parsed));
    EXPECT_EQ(static_cast<int>(parsed), i);
  }
  DType untouched = DType::I16;
  EXPECT_FALSE(parse_dtype("F4", untouched));
  EXPECT_FALSE(parse_dtype("", untouched));
  EXPECT_EQ(size_of(DType::BF16), 2u);
  EXPECT_EQ(size_of(DType::F8_E8M0), 1u);
  EXPECT_EQ(size_of(DType::I64), 8u);
}

TEST(DType, EveryBf16CodeSurvivesFp32) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    BF16 b;
    b.bits = static_cast<std::uint16_t>(code);
    const float value = b;
    EXPECT_EQ(std::bit_cast<std::uint32_t>(value), code << 16);
    const bool nan = (code & 0x7FFF) > 0x7F80;
    EXPECT_EQ(BF16(value).bits, nan ? (code | 0x40) : code);
  }
}

TEST(DType, Bf16RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t code = 0; code < 0x7F80; ++code) {
    const std::uint32_t low = code << 16, tie = low | 0x8000;
    for (std::uint32_t sign : {0u, 0x80000000u}) {
      const auto to = [&](std::uint32_t bits) {
        return BF16(std::bit_cast<float>(bits | sign)).bits;
      };
      const auto s = static_cast<std::uint16_t>(sign >> 16);
      EXPECT_EQ(to(tie - 1), code | s);
      EXPECT_EQ(to(tie), (code + (code & 1)) | s);  // the last one becomes infinity
      EXPECT_EQ(to(tie + 1), (code + 1) | s);
    }
  }
  EXPECT_EQ(BF16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(BF16(std::bit_cast<float>(0x7F800001u)).bits, 0x7FC0);  // stays NaN
}

TEST(DType, EveryE4m3CodeSurvivesFp32) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3(code);
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_EQ(E4M3(value).code & 0x7F, 0x7F);
      continue;
    }
    const int exponent = (code >> 3) & 15, mantissa = code & 7;
    const double exact =
        exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    EXPECT_EQ(value, code & 0x80 ? -exact : exact);
    EXPECT_EQ(std::signbit(value), code >= 128);
    EXPECT_EQ(E4M3(value).code, code);
  }
}

TEST(DType, E4m3RoundsToNearestEvenBetweenAllNeighbours) {
  for (int code = 0; code < 0x7E; ++code) {
    const float low = e4m3(code), high = e4m3(code + 1), tie = (low + high) / 2;
    for (float sign : {1.0f, -1.0f}) {
      const int s = sign < 0 ? 0x80 : 0;
      EXPECT_EQ(E4M3(sign * std::nextafter(tie, 0.0f)).code, code | s);
      EXPECT_EQ(E4M3(sign * tie).code, (code + (code & 1)) | s);
      EXPECT_EQ(E4M3(sign * std::nextafter(tie, kInf)).code, (code + 1) | s);
    }
  }
}

TEST(DType, E4m3SaturatesAndKeepsSignsAndNan) {
  for (float x : {448.0f, 449.0f, 464.0f, 465.0f, 1e30f, kInf}) {
    EXPECT_EQ(E4M3(x).code, 0x7E) << x;
    EXPECT_EQ(E4M3(-x).code, 0xFE) << x;
  }
  EXPECT_EQ(E4M3(-0.0f).code, 0x80);
  EXPECT_EQ(E4M3(-1e-30f).code, 0x80);
  EXPECT_EQ(E4M3(std::numeric_limits<float>::denorm_min()).code, 0);
  EXPECT_EQ(E4M3(kNan).code & 0x7F, 0x7F);
  EXPECT_EQ(E4M3(-kNan).code & 0x7F, 0x7F);
}

TEST(DType, E4m3IsTheNearestOfAllCodesForRandomValues) {
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    const float x = std::bit_cast<float>(bits);
    if (!std::isfinite(x) || std::fabs(x) > 448.0f) continue;
    const double error = std::fabs(double(float(E4M3(x))) - x);
    for (int code = 0; code < 256; ++code)
      if ((code & 0x7F) != 0x7F) {
        EXPECT_LE(error, std::fabs(double(float(e4m3(code))) - x));
      }
  }
}

TEST(DType, Ue8m0IsThePowerOfTwoNotBelow) {
  for (int code = 0; code < 255; ++code) {
    UE8M0 s;
    s.code = static_cast<std::uint8_t>(code);
    const float value = s;
    EXPECT_EQ(value, std::ldexp(1.0, code - 127));
    EXPECT_EQ(UE8M0::round_up(value).code, code);
    if (code == 254) break;
    EXPECT_EQ(UE8M0::round_up(std::nextafter(value, kInf)).code, code + 1);
    EXPECT_EQ(UE8M0::round_up(value * 1.999f).code, code + 1);
  }
  UE8M0 nan;
  nan.code = 255;
  EXPECT_TRUE(std::isnan(float(nan)));
  EXPECT_EQ(UE8M0::round_up(std::numeric_limits<float>::max()).code, 254);  // no larger one
  EXPECT_EQ(UE8M0::round_up(std::numeric_limits<float>::denorm_min()).code, 0);
}

TEST(DType, EveryF16Code) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    F16 h;
    h.bits = static_cast<std::uint16_t>(code);
    const int exponent = (code >> 10) & 31, mantissa = code & 1023;
    const float value = h;
    EXPECT_EQ(std::signbit(value), (code >> 15) == 1);
    if (exponent == 31) {
      EXPECT_TRUE(mantissa ? std::isnan(value) : std::isinf(value));
    } else {
      EXPECT_EQ(std::fabs(value), exponent ? std::ldexp(1024.0 + mantissa, exponent - 25)
                                           : std::ldexp(double(mantissa), -24));
    }
  }
}

}  // namespace
}  // namespace minke

#include "tensor/e5m6.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace minke {
namespace {

float value_of(int code) {
  E5M6 e;
  e.code = static_cast<std::uint16_t>(code);
  return e;
}
int code_of(float value) {
  return E5M6(value).code;
}

TEST(E5M6, EveryCodeComesBack) {
  for (int code = 0; code < 0x1000; ++code) {
    const float value = value_of(code);
    if ((code & 0x7FF) == 0x7FF)
      EXPECT_TRUE(std::isnan(value)) << code;
    else
      EXPECT_EQ(code_of(value), code);
  }
}

TEST(E5M6, ValuesAreThoseOfTheFormat) {
  EXPECT_EQ(value_of(0x3C0), 1.0f);
  EXPECT_EQ(value_of(0xBC1), -1.0f - 1.0f / 64);
  EXPECT_EQ(value_of(1), 0x1p-20f);
  EXPECT_EQ(value_of(0x3F), 63 * 0x1p-20f);
  EXPECT_EQ(value_of(0x40), 0x1p-14f);
  EXPECT_EQ(value_of(0x7FE), kLargestE5M6);
  EXPECT_TRUE(std::signbit(value_of(0x800)));
}

// Between each two neighbours, subnormals and the step to normal numbers included.
TEST(E5M6, RoundsToNearestEven) {
  for (int code = 0; code < 0x7FE; ++code) {
    const float low = value_of(code), high = value_of(code + 1), middle = (low + high) / 2;
    EXPECT_EQ(code_of(middle), code % 2 ? code + 1 : code);
    EXPECT_EQ(code_of(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(code_of(std::nextafter(middle, 1e9f)), code + 1);
    EXPECT_EQ(code_of(-middle), 0x800 + (code % 2 ? code + 1 : code));
  }
}

TEST(E5M6, SaturatesAndKeepsNan) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float large : {kLargestE5M6, 2e5f, 3e38f, infinity}) {
    EXPECT_EQ(code_of(large), 0x7FE);
    EXPECT_EQ(code_of(-large), 0xFFE);
  }
  EXPECT_EQ(code_of(std::nanf("")) & 0x7FF, 0x7FF);
  EXPECT_EQ(code_of(1e-30f), 0);
  EXPECT_EQ(code_of(-1e-30f), 0x800);
}

TEST(E5M6, PacksTwoCodesInThreeBytes) {
  for (std::size_t n : {0u, 1u, 2u, 3u, 8u, 129u}) {
    std::vector<std::uint16_t> codes(n), back(n);
    for (std::size_t i = 0; i < n; ++i)
      codes[i] = static_cast<std::uint16_t>((i * 1237 + 0xABC) & 0xFFF);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(packed_e5m6_bytes(n)) + 1, 0xEE);
    pack_e5m6(codes, bytes.data());
    unpack_e5m6(bytes.data(), back);
    EXPECT_EQ(back, codes);
    EXPECT_EQ(bytes.back(), 0xEE);
  }
  EXPECT_EQ(packed_e5m6_bytes(128), 192);
  EXPECT_EQ(packed_e5m6_bytes(3), 5);
}

}  // namespace
}  // namespace minke

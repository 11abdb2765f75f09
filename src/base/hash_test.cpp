#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace minke {
namespace {

std::uint64_t of(const std::string& text) {
  return hash64({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

TEST(Hash, PublishedValues) {
  EXPECT_EQ(to_hex(of("")), "ef46db3751d8e999");
  EXPECT_EQ(to_hex(of("a")), "d24ec4f1a98c6e5b");
  EXPECT_EQ(to_hex(of("abc")), "44bc2cf5ad770999");
  EXPECT_EQ(to_hex(of("Nobody inspects the spammish repetition")), "fbcea83c8a378bf1");
}

TEST(Hash, PiecesMakeNoDifference) {
  std::vector<std::byte> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  for (std::size_t n : {0u, 1u, 31u, 32u, 33u, 64u, 100u, 1000u}) {
    const std::span<const std::byte> all(bytes.data(), n);
    for (std::size_t step : {1u, 3u, 7u, 31u, 32u, 33u, 500u}) {
      Hash64 h;
      for (std::size_t at = 0; at < n; at += step) h.add(all.subspan(at, std::min(step, n - at)));
      EXPECT_EQ(h.value(), hash64(all)) << n << " by " << step;
    }
  }
}

}  // namespace
}  // namespace minke

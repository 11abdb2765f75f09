#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace minke {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers that the paper's authors publish with their library.
TEST(Random, PhiloxKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const std::uint32_t ones = 0xffffffffu;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(
      philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
      (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Random, StateResumesExactlyAtEveryPosition) {
  Random whole(7, 3);
  std::vector<std::uint64_t> draws;
  for (int i = 0; i < 20; ++i) draws.push_back(whole.next());
  for (std::size_t cut = 0; cut <= draws.size(); ++cut) {
    Random first(7, 3);
    for (std::size_t i = 0; i < cut; ++i) first.next();
    Random second(first.state());
    for (std::size_t i = cut; i < draws.size(); ++i) EXPECT_EQ(second.next(), draws[i]);
  }
  whole.set_position(5);
  EXPECT_EQ(whole.next(), draws[5]);
}

TEST(Random, SeedsAndStreamsDiffer) {
  EXPECT_NE(Random(1).next(), Random(2).next());
  EXPECT_NE(Random(1, 0).next(), Random(1, 1).next());
  EXPECT_EQ(Random(1, 1).next(), Random(1, 1).next());
}

// Bounds are five standard errors of the estimate.
TEST(Random, UniformAndNormalHaveTheRightMoments) {
  const int n = 200000;
  Random random(1);
  double sum = 0, square = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
  }
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  sum = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    sum += x;
    square += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(square / n, 1.0, 5 * std::sqrt(2.0 / n));
}

TEST(Random, BelowCoversItsRangeEvenly) {
  Random random(5);
  const int n = 70000;
  std::vector<int> count(7);
  for (int i = 0; i < n; ++i) count[random.below(7)]++;
  for (int c : count) EXPECT_NEAR(c, n / 7.0, 5 * std::sqrt(n / 7.0));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.below(~std::uint64_t{0}), ~std::uint64_t{0});
}

TEST(Random, ShufflePermutesAndDependsOnTheSeedAlone) {
  const auto shuffled = [](std::uint64_t seed) {
    std::vector<int> items;
    for (int i = 0; i < 50; ++i) items.push_back(i);
    Random(seed).shuffle(std::span(items));
    return items;
  };
  EXPECT_EQ(shuffled(1), shuffled(1));
  EXPECT_NE(shuffled(1), shuffled(2));
  std::vector<int> seen(50);
  for (int x : shuffled(3)) seen[static_cast<std::size_t>(x)]++;
  EXPECT_EQ(seen, std::vector<int>(50, 1));
  std::vector<int> empty;
  Random(1).shuffle(std::span(empty));
}

}  // namespace
}  // namespace minke

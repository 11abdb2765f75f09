#include "base/random.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace minke {
namespace {

struct Product {
  std::uint32_t high, low;
};

Product multiply(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t p = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(p >> 32), static_cast<std::uint32_t>(p)};
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c,
                                        std::array<std::uint32_t, 2> key) {
  constexpr int rounds = 10;
  for (int round = 0; round < rounds; ++round) {
    const Product p0 = multiply(0xD2511F53u, c[0]);
    const Product p1 = multiply(0xCD9E8D57u, c[2]);
    c = {p1.high ^ c[1] ^ key[0], p1.low, p0.high ^ c[3] ^ key[1], p0.low};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

std::uint64_t Random::next() {
  const std::uint64_t block = state_.position / 2;  // a block gives two draws
  if (block != block_number_) {
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    block_ = philox4x32({low(block), high(block), low(state_.stream), high(state_.stream)},
                        {low(state_.seed), high(state_.seed)});
    block_number_ = block;
  }
  const std::size_t half = 2 * (state_.position++ % 2);
  return block_[half] | std::uint64_t{block_[half + 1]} << 32;
}

double Random::uniform() {
  return static_cast<double>(next() >> 11) * 0x1p-53;
}

double Random::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));  // the argument is in (0, 1]
  const double angle = 2.0 * std::numbers::pi * uniform();
  return radius * std::cos(angle);
}

// The high half of draw * n, with the draws left out that would make some results likelier (Lemire:
// "Fast random integer generation in an interval", 2019).
std::uint64_t Random::below(std::uint64_t n) {
  MINKE_ASSERT(n >= 1);
  const std::uint64_t threshold = -n % n;  // 2^64 mod n
  while (true) {
    const unsigned __int128 product = static_cast<unsigned __int128>(next()) * n;
    if (static_cast<std::uint64_t>(product) >= threshold)
      return static_cast<std::uint64_t>(product >> 64);
  }
}

// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
std::uint64_t mix_bits(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace minke

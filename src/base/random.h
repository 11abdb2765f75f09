// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011).
//
// The state is three integers, so it can be written to a checkpoint and read back exactly, and draw
// number n of a stream can be had without drawing those before it. Streams of one seed are
// independent of each other.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace minke {

// One block of the generator: a bijection of the counter for each key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

struct RandomState {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  std::uint64_t position = 0;  // 64-bit draws taken so far
  bool operator==(const RandomState&) const = default;
};

class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0)
      : Random(RandomState{seed, stream}) {}
  explicit Random(RandomState state) : state_(state) {}

  std::uint64_t next();                  // 64 uniform bits
  double uniform();                      // [0, 1), a multiple of 2^-53; one draw
  double normal();                       // mean 0, variance 1 (Box-Muller); always two draws
  std::uint64_t below(std::uint64_t n);  // [0, n) without bias; n >= 1; one draw, rarely more

  // Fisher and Yates.
  template <class T>
  void shuffle(std::span<T> items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

  const RandomState& state() const { return state_; }
  void set_position(std::uint64_t position) { state_.position = position; }

 private:
  RandomState state_;
  std::uint64_t block_number_ = ~std::uint64_t{0};  // of block_; the last value means none
  std::array<std::uint32_t, 4> block_{};
};

// A number that spreads the bits of `value`: to derive a seed or a stream from another number.
std::uint64_t mix_bits(std::uint64_t value);

}  // namespace minke

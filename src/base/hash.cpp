#include "base/hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace minke {
namespace {

constexpr std::uint64_t kP1 = 0x9E3779B185EBCA87u, kP2 = 0xC2B2AE3D27D4EB4Fu,
                        kP3 = 0x165667B19E3779F9u, kP4 = 0x85EBCA77C2B2AE63u,
                        kP5 = 0x27D4EB2F165667C5u;

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

std::uint64_t mix(std::uint64_t lane, std::uint64_t word) {
  return std::rotl(lane + word * kP2, 31) * kP1;
}

}  // namespace

Hash64::Hash64() : lanes_{kP1 + kP2, kP2, 0, 0 - kP1} {}

void Hash64::add(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  total_ += bytes.size();
  const std::byte* p = bytes.data();
  std::size_t n = bytes.size();
  if (tail_size_) {
    const std::size_t take = std::min(n, sizeof tail_ - tail_size_);
    std::memcpy(tail_ + tail_size_, p, take);
    tail_size_ += take, p += take, n -= take;
    if (tail_size_ < sizeof tail_) return;
    for (int i = 0; i < 4; ++i) lanes_[i] = mix(lanes_[i], load<std::uint64_t>(tail_ + 8 * i));
    tail_size_ = 0;
  }
  std::uint64_t a = lanes_[0], b = lanes_[1], c = lanes_[2], d = lanes_[3];
  for (; n >= 32; n -= 32, p += 32) {
    a = mix(a, load<std::uint64_t>(p));
    b = mix(b, load<std::uint64_t>(p + 8));
    c = mix(c, load<std::uint64_t>(p + 16));
    d = mix(d, load<std::uint64_t>(p + 24));
  }
  lanes_[0] = a, lanes_[1] = b, lanes_[2] = c, lanes_[3] = d;
  if (n) std::memcpy(tail_, p, n);
  tail_size_ = n;
}

std::uint64_t Hash64::value() const {
  std::uint64_t h = kP5;
  if (total_ >= 32) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
        std::rotl(lanes_[3], 18);
    for (std::uint64_t lane : lanes_) h = (h ^ mix(0, lane)) * kP1 + kP4;
  }
  h += total_;
  std::size_t i = 0;
  for (; i + 8 <= tail_size_; i += 8)
    h = std::rotl(h ^ mix(0, load<std::uint64_t>(tail_ + i)), 27) * kP1 + kP4;
  if (i + 4 <= tail_size_) {
    h = std::rotl(h ^ (load<std::uint32_t>(tail_ + i) * kP1), 23) * kP2 + kP3;
    i += 4;
  }
  for (; i < tail_size_; ++i) h = std::rotl(h ^ (std::uint64_t(tail_[i]) * kP5), 11) * kP1;
  h = (h ^ (h >> 33)) * kP2;
  h = (h ^ (h >> 29)) * kP3;
  return h ^ (h >> 32);
}

std::uint64_t hash64(std::span<const std::byte> bytes) {
  Hash64 h;
  h.add(bytes);
  return h.value();
}

std::string to_hex(std::uint64_t value) {
  return fmt::format("{:016x}", value);
}

}  // namespace minke

// XXH64 (the published 64-bit algorithm by Yann Collet), computed as bytes arrive. It guards
// against torn and mixed-up files, not against an adversary; `xxhsum -H64 FILE` prints the same
// number.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace minke {

class Hash64 {
 public:
  Hash64();
  void add(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  std::uint64_t lanes_[4];
  std::byte tail_[32];
  std::size_t tail_size_ = 0;
  std::uint64_t total_ = 0;
};

std::uint64_t hash64(std::span<const std::byte> bytes);
std::string to_hex(std::uint64_t value);  // 16 digits

}  // namespace minke

// Byte-pair encoding of one piece: of all neighbouring pairs that have a merge the one of lowest
// rank is joined first, the leftmost among equals, until none is left.
// O(n log n) in the bytes of the piece, whatever they are.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace minke {

struct Merge {
  std::int32_t left, right;  // pieces that are joined
  std::int32_t joined;       // the piece that they become
};

class BpeMerges {
 public:
  BpeMerges() = default;
  // `byte_ids[b]` is the piece of byte b; a merge's rank is its place in `merges`. Of two merges
  // of the same pair the later one holds.
  BpeMerges(const std::array<std::int32_t, 256>& byte_ids, const std::vector<Merge>& merges);

  struct Scratch {
    std::vector<std::int32_t> id, rank, previous, next;
    std::vector<std::uint64_t> heap;
  };

  // Adds the ids of `piece` (less than 2 GiB) to `out`. Safe from several threads, each with its
  // own scratch.
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;

 private:
  struct Slot {
    std::uint64_t pair;
    std::int32_t rank, joined;
  };
  const Slot* find(std::int32_t left, std::int32_t right) const;
  void encode_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_long(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<Slot> slots_;  // open addressing, a power of two
  int shift_ = 63;
};

}  // namespace minke

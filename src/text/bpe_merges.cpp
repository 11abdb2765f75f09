#include "text/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

namespace minke {
namespace {

constexpr std::uint64_t kFree = ~std::uint64_t{0};
constexpr std::int32_t kNoMerge = std::numeric_limits<std::int32_t>::max();
// Up to here looking through all pairs after every merge beats a heap (most pieces are words).
constexpr std::size_t kShort = 32;

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::uint64_t scramble(std::uint64_t key) {
  return key * 0x9E3779B97F4A7C15u;
}

}  // namespace

BpeMerges::BpeMerges(const std::array<std::int32_t, 256>& byte_ids,
                     const std::vector<Merge>& merges)
    : byte_ids_(byte_ids) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(16, merges.size() * 2));
  slots_.assign(size, {kFree, kNoMerge, 0});
  shift_ = 64 - std::countr_zero(size);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& m = merges[rank];
    const std::uint64_t key = pair_key(m.left, m.right);
    std::size_t at = scramble(key) >> shift_;
    while (slots_[at].pair != kFree && slots_[at].pair != key) at = (at + 1) & (size - 1);
    slots_[at] = {key, static_cast<std::int32_t>(rank), m.joined};
  }
}

const BpeMerges::Slot* BpeMerges::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  for (std::size_t at = scramble(key) >> shift_;; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == key) return &slots_[at];
    if (slots_[at].pair == kFree) return nullptr;
  }
}

void BpeMerges::encode(std::string_view piece, Scratch& scratch,
                       std::vector<std::int32_t>& out) const {
  if (piece.size() <= kShort)
    encode_short(piece, out);
  else
    encode_long(piece, scratch, out);
}

void BpeMerges::encode_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  std::int32_t id[kShort];
  const Slot* merge[kShort];  // of id[i] and id[i + 1]
  std::size_t n = piece.size();
  for (std::size_t i = 0; i < n; ++i) id[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < n; ++i) merge[i] = find(id[i], id[i + 1]);
  while (n > 1) {
    std::size_t best = n;
    std::int32_t rank = kNoMerge;
    for (std::size_t i = 0; i + 1 < n; ++i)
      if (merge[i] && merge[i]->rank < rank) rank = merge[best = i]->rank;
    if (best == n) break;
    id[best] = merge[best]->joined;
    std::copy(id + best + 2, id + n, id + best + 1);
    if (best + 2 < n) std::copy(merge + best + 2, merge + n - 1, merge + best + 1);
    --n;
    if (best > 0) merge[best - 1] = find(id[best - 1], id[best]);
    if (best + 1 < n) merge[best] = find(id[best], id[best + 1]);
  }
  out.insert(out.end(), id, id + n);
}

// A doubly linked list of pieces and a heap of (rank, place). Entries are not removed when a merge
// beside them makes them void: rank[place] says which one is still true.
void BpeMerges::encode_long(std::string_view piece, Scratch& s,
                            std::vector<std::int32_t>& out) const {
  const auto n = static_cast<std::int32_t>(piece.size());
  s.id.resize(piece.size());
  s.rank.assign(piece.size(), kNoMerge);
  s.previous.resize(piece.size());
  s.next.resize(piece.size());
  s.heap.clear();
  const auto entry = [](std::int32_t rank, std::int32_t at) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(rank)) << 32 |
           static_cast<std::uint32_t>(at);
  };
  const auto rank_of = [&](std::int32_t at) {
    if (s.next[at] == n) return kNoMerge;
    const Slot* merge = find(s.id[at], s.id[s.next[at]]);
    return merge ? merge->rank : kNoMerge;
  };
  for (std::int32_t i = 0; i < n; ++i) {
    s.id[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
    s.previous[i] = i - 1;
    s.next[i] = i + 1;
  }
  for (std::int32_t i = 0; i + 1 < n; ++i)
    if ((s.rank[i] = rank_of(i)) != kNoMerge) s.heap.push_back(entry(s.rank[i], i));
  std::make_heap(s.heap.begin(), s.heap.end(), std::greater<>());

  const auto update = [&](std::int32_t at) {
    s.rank[at] = rank_of(at);
    if (s.rank[at] == kNoMerge) return;
    s.heap.push_back(entry(s.rank[at], at));
    std::push_heap(s.heap.begin(), s.heap.end(), std::greater<>());
  };
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), std::greater<>());
    const auto at = static_cast<std::int32_t>(s.heap.back() & 0xFFFFFFFFu);
    const auto rank = static_cast<std::int32_t>(s.heap.back() >> 32);
    s.heap.pop_back();
    if (s.rank[at] != rank) continue;
    const std::int32_t gone = s.next[at];
    s.id[at] = find(s.id[at], s.id[gone])->joined;
    s.rank[gone] = kNoMerge;
    s.next[at] = s.next[gone];
    if (s.next[at] != n) s.previous[s.next[at]] = at;
    update(at);
    if (s.previous[at] >= 0) update(s.previous[at]);
  }
  for (std::int32_t i = 0; i != n; i = s.next[i]) out.push_back(s.id[i]);
}

}  // namespace minke

// What the passes of attention_forward.cpp share: the query rows of a block, and partial results.
// For ops/ only.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

#include "ops/attention_kernels.h"
#include "ops/attention_rows.h"

namespace minke::attention {

constexpr Index kSplit = 8 * kKeyTile;  // keys of one partial result
constexpr Index kMostRows = 128;        // of a block
constexpr Index kPad = 16;              // rows of scratch are multiples of the widest vector

inline Index padded(Index n) {
  return (n + kPad - 1) / kPad * kPad;
}

template <class Rows_, class Query_ = float>
struct Problem {  // one sequence
  using Rows = Rows_;
  using Query = Query_;
  View2<const Query> q;
  Rows k, v;
  Index first_position;
  View2<float> out, lse;
};

struct Block {  // some query rows of one sequence that share their keys
  Index problem, kv_head;
  Index first, rows;  // of T * H (all heads share keys) or of T (one head)
};

struct Partial {       // softmax over some keys, not yet divided by its total
  float *top, *total;  // [width]
  float* o;            // [width, padded value]
};

template <class Problem>
class BlockRows {
 public:
  BlockRows(const AttentionKernels& kernels, const AttentionShape& shape, const Problem& problem,
            const Block& block, float scale)
      : kernels_(kernels), shape_(shape), p_(problem), block_(block), scale_(scale) {}

  Index width() const { return padded(block_.rows); }
  Index partial_size() const { return width() * (2 + padded(shape_.value)); }
  Partial partial_at(float* memory) const {
    return {memory, memory + width(), memory + 2 * width()};
  }
  Index n_splits() const { return position(block_.rows - 1) / kSplit + 1; }

  void merge(const Partial& later, const Partial& into) const {
    for (Index r = 0; r < block_.rows; ++r) {
      const float top = std::max(into.top[r], later.top[r]);
      const float a = kernels_.exp(into.top[r] - top), b = kernels_.exp(later.top[r] - top);
      into.top[r] = top;
      into.total[r] = into.total[r] * a + later.total[r] * b;
      const Index n = padded(shape_.value);
      kernels_.blend(a, into.o + r * n, b, later.o + r * n, n);
    }
  }

  void write(const Partial& result) const {
    for (Index r = 0; r < block_.rows; ++r) {
      const float inverse = 1 / result.total[r];
      const float* o = result.o + r * padded(shape_.value);
      float* out = p_.out.data() + token(r) * p_.out.stride(0) + head(r) * shape_.value;
      for (Index c = 0; c < shape_.value; ++c) out[c] = o[c] * inverse;
      if (!p_.lse.empty()) p_.lse(token(r), head(r)) = result.top[r] + std::log(result.total[r]);
    }
  }

 protected:
  using Query = typename Problem::Query;

  bool shared() const { return shape_.n_kv_heads == 1; }
  Index token(Index r) const {
    return shared() ? (block_.first + r) / shape_.n_heads : block_.first + r;
  }
  Index head(Index r) const {
    return shared() ? (block_.first + r) % shape_.n_heads : block_.kv_head;
  }
  Index position(Index r) const { return p_.first_position + token(r); }
  const Query* query(Index r) const {
    return p_.q.data() + token(r) * p_.q.stride(0) + head(r) * shape_.qk;
  }

  // Keys of the split, up to the last that some row sees.
  Index end_of(Index split) const {
    return std::min(position(block_.rows - 1) + 1, (split + 1) * kSplit);
  }
  static void begin(const Partial& result, Index width) {
    std::fill_n(result.top, width, -std::numeric_limits<float>::infinity());
    std::fill_n(result.total, width, 0.0f);
  }
  // What a row sees of the keys from `begin` on; of padding, as the last row.
  void fill_last_keys(Index begin, float* last_key) const {
    for (Index r = 0; r < width(); ++r)
      last_key[r] = static_cast<float>(position(std::min(r, block_.rows - 1)) - begin);
  }
  void shrink(const float* factor, float* o) const {
    const Index n = padded(shape_.value);
    for (Index r = 0; r < block_.rows; ++r)
      if (factor[r] != 1) kernels_.blend(factor[r], o + r * n, 0, o + r * n, n);
  }

  // For latent rows, which are met in memory. Tiles are asked for in rising order; `end` is that of
  // the split. A tile that has not been fetched is touched from front to back, so that the
  // processor fetches ahead: what takes two rows at once sees memory at a third of its speed.
  // Returned is the memory of the next tile, to be fetched while this one is scored.
  std::span<const char> fetch(Index begin, Index n, Index end) {
    if (fetched_ != begin) touch(memory_of(begin, n));
    fetched_ = begin + kKeyTile;
    if (fetched_ >= end) return {};
    return memory_of(fetched_, std::min(kKeyTile, end - fetched_));
  }

  // Rows of queries, row_of(r) [columns], to [columns, width].
  template <class RowOf>
  void transpose(const RowOf& row_of, Index columns, float* to) const {
    std::array<const float*, kMostRows> rows{};
    for (Index r = 0; r < block_.rows; ++r) rows[static_cast<std::size_t>(r)] = row_of(r);
    kernels_.transpose(rows.data(), block_.rows, columns, to, width());
  }
  // Rows [n, width] become [n / 2, width], two after the other in a pair; in place. n is even, or
  // there is room for a row of zeros.
  void pair_up_rows(Index n, float* rows) const {
    if (n % 2 == 1) std::fill_n(rows + n * width(), width(), 0.0f);
    for (Index i = 0; i < n; i += 2)
      kernels_.pairs->pair_up(rows + i * width(), rows + (i + 1) * width(), rows + i / 2 * width(),
                              width());
  }
  // The queries as pairs [qk / 2, width]; qk is even.
  void transpose_pairs(float* to) const {
    if constexpr (std::is_same_v<Query, float>) {
      transpose([&](Index r) { return query(r); }, shape_.qk, to);
      pair_up_rows(shape_.qk, to);
    } else {
      transpose([&](Index r) { return reinterpret_cast<const float*>(query(r)); }, shape_.qk / 2,
                to);
    }
  }

  const AttentionKernels& kernels_;
  const AttentionShape& shape_;
  const Problem& p_;
  const Block& block_;
  const float scale_;

 private:
  using Rows = typename Problem::Rows;

  // Rows [begin, begin + n) of a tile: one stretch.
  std::span<const char> memory_of(Index begin, Index n) const {
    if constexpr (std::is_same_v<Rows, Fp8LatentRows>) {
      const auto* first = reinterpret_cast<const char*>(row_of(p_.k, begin).begin);
      return {first, static_cast<std::size_t>(n * static_cast<Index>(p_.k.row.bytes()))};
    } else {
      const auto* first = reinterpret_cast<const char*>(row_of(p_.k, begin));
      const std::size_t numbers = static_cast<std::size_t>((n - 1) * row_stride(p_.k) + shape_.qk);
      return {first, numbers * sizeof *row_of(p_.k, begin)};
    }
  }
  static void touch(std::span<const char> memory) {
    for (std::size_t i = 0; i < memory.size(); i += 64) {
      __builtin_prefetch(memory.data() + i + 2048);
      __asm__ volatile("" : : "r"(memory[i]));
    }
  }

  Index fetched_ = -1;  // the tile that has been fetched
};

}  // namespace minke::attention

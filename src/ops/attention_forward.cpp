// The forward pass over query blocks and key tiles.
//
// The lanes of a vector are query rows: scores are formed transposed, s [keys, query rows], so that
// a key element is broadcast and the running softmax needs no sums across lanes. A block holds the
// rows of one head, or, where all heads share their keys, the rows of all heads of some queries:
// then a cache row is read once for all of them. Keys and values of a tile are copied (widened) to
// dense scratch once per block; a value row that begins a key row is not copied again.
//
// Rows in BF16 are multiplied as pairs of BF16 numbers where the processor has such products at
// full rate (PairKernels): keys where they lie, values interleaved by twos; probabilities, and
// queries in FP32, are rounded to BF16 for it. Elsewhere the arithmetic is FP32. Latent rows in FP8
// become such rows tile by tile: each code is widened once and serves as key and as value of all
// heads.
//
// Speed: the products run at 95 % of the multiply-add units (AVX-512). Latent rows are met in
// memory: while the scores of a tile are formed the next one is fetched.
//
// Bits: every score and every sum is a chain in the order of the keys, tile after tile; after
// kSplit keys a new partial result begins, and partial results are merged in rising order. All of
// it depends on positions alone, so pieces may run on any thread, and queries in any company.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/threads.h"
#include "ops/attention_kernels.h"
#include "ops/attention_rows.h"
#include "ops/check_extents.h"
#include "ops/gemm.h"

namespace minke {
namespace {

constexpr Index kSplit = 8 * kKeyTile;  // keys of one partial result
constexpr Index kMostRows = 128;        // of a block
constexpr Index kPad = 16;              // rows of scratch are multiples of the widest vector
constexpr Index kTrim = 8;              // granularity of what is left out above the diagonal

Index padded(Index n) {
  return (n + kPad - 1) / kPad * kPad;
}

template <class Rows, class Query = float>
struct Problem {  // one sequence
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

template <class Rows, class Query>
class BlockPass {
 public:
  BlockPass(const AttentionKernels& kernels, const AttentionShape& shape,
            const Problem<Rows, Query>& problem, const Block& block, float scale)
      : kernels_(kernels),
        shape_(shape),
        p_(problem),
        block_(block),
        scale_(scale),
        pairs_(multiplies_pairs() ? kernels.pairs : nullptr) {}

  Index width() const { return padded(block_.rows); }
  Index partial_size() const { return width() * (2 + padded(shape_.value)); }
  Partial partial_at(float* memory) const {
    return {memory, memory + width(), memory + 2 * width()};
  }
  Index n_splits() const { return position(block_.rows - 1) / kSplit + 1; }
  Index scratch_size() const {
    return width() * (shape_.qk + 2 + kKeyTile) +
           kKeyTile * (padded(shape_.qk) + padded(shape_.value));
  }

  // The queries transposed, into the scratch that all splits of this thread use.
  void take_queries(float* scratch) {
    q_t_ = scratch;
    last_key_ = q_t_ + width() * shape_.qk;
    shrink_ = last_key_ + width();
    s_ = shrink_ + width();
    keys_ = s_ + width() * kKeyTile;
    values_ = keys_ + kKeyTile * padded(shape_.qk);
    if constexpr (std::is_same_v<Query, float>) {
      transpose([&](Index r) { return query(r); }, shape_.qk, q_t_);
      if (pairs_) pair_up_rows(shape_.qk, q_t_);
    } else if (pairs_) {
      transpose([&](Index r) { return reinterpret_cast<const float*>(query(r)); }, shape_.qk / 2,
                q_t_);
    } else {
      widen_queries();
    }
  }

  void attend(Index split, const Partial& result) {
    std::fill_n(result.top, width(), -std::numeric_limits<float>::infinity());
    std::fill_n(result.total, width(), 0.0f);
    const Index end = std::min(position(block_.rows - 1) + 1, (split + 1) * kSplit);
    next_ = {};
    for (Index begin = split * kSplit; begin < end; begin += kKeyTile)
      add_tile(begin, std::min(kKeyTile, end - begin), end, begin == split * kSplit, result);
  }

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

 private:
  bool shared() const { return shape_.n_kv_heads == 1; }
  static constexpr bool kFp8 = std::is_same_v<Rows, Fp8LatentRows>;
  static constexpr bool kBf16 = std::is_same_v<Rows, KeyRows<BF16>>;

  // Rows of queries, row_of(r) [columns], to [columns, width].
  template <class RowOf>
  void transpose(const RowOf& row_of, Index columns, float* to) const {
    std::array<const float*, kMostRows> rows{};
    for (Index r = 0; r < block_.rows; ++r) rows[static_cast<std::size_t>(r)] = row_of(r);
    kernels_.transpose(rows.data(), block_.rows, columns, to, width());
  }

  // As many columns of queries in BF16 at a time as the place of the scores holds.
  void widen_queries() {
    for (Index c = 0; c < shape_.qk; c += kKeyTile) {
      const Index n = std::min(kKeyTile, shape_.qk - c);
      for (Index r = 0; r < block_.rows; ++r) kernels_.widen(query(r) + c, s_ + r * kKeyTile, n);
      transpose([&](Index r) { return s_ + r * kKeyTile; }, n, q_t_ + c * width());
    }
  }

  // Whether a row is key and value of all heads.
  bool latent() const { return shared() && same_rows(p_.k, p_.v) && shape_.value <= shape_.qk; }
  bool multiplies_pairs() const {
    if constexpr (kBf16)
      if (row_stride(p_.k) % 2 != 0) return false;
    if constexpr (std::is_same_v<Query, BF16>)
      if (p_.q.stride(0) % 2 != 0) return false;
    return (kBf16 || (kFp8 && latent())) && shape_.qk % 2 == 0;
  }
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

  // Keys [begin, begin + n_keys) of those up to `end`.
  void add_tile(Index begin, Index n_keys, Index end, bool is_first, const Partial& result) {
    load_tile(begin, n_keys);
    const bool masked = begin + n_keys - 1 > position(0);
    if (masked)
      for (Index r = 0; r < width(); ++r)
        last_key_[r] = static_cast<float>(position(std::min(r, block_.rows - 1)) - begin);
    next_ = {};
    if (!masked && latent() && begin + kKeyTile < end)
      next_ = memory_of(begin + kKeyTile, std::min(kKeyTile, end - begin - kKeyTile));
    score(n_keys, masked);
    kernels_.softmax_step(
        {s_, width(), n_keys, scale_, masked, last_key_, result.top, result.total, shrink_});
    if (pairs_) {
      if (n_keys % 2 == 1) std::fill_n(s_ + n_keys * width(), width(), 0.0f);
      pair_up_rows(n_keys, s_);
    }
    const Index n = padded(shape_.value);
    if (!is_first)
      for (Index r = 0; r < block_.rows; ++r)
        if (shrink_[r] != 1) kernels_.blend(shrink_[r], result.o + r * n, 0, result.o + r * n, n);
    add_values(begin, n_keys, masked, is_first, result.o);
  }

  // Rows [n, width] become [n / 2, width], two after the other in a pair; in place.
  void pair_up_rows(Index n, float* rows) const {
    for (Index i = 0; i < n; i += 2)
      pairs_->pair_up(rows + i * width(), rows + (i + 1) * width(), rows + i / 2 * width(),
                      width());
  }

  // Values of keys 2i and 2i + 1 as pairs; beyond the last key are zeros.
  void pair_values(Index begin, Index n) {
    const Index stride = padded(shape_.value);
    const Index column = block_.kv_head * shape_.value;
    for (Index s = 0; s < n; s += 2) {
      const BF16* later = s + 1 < n ? row_of(p_.v, begin + s + 1) + column : nullptr;
      float* to = values_ + s / 2 * stride;
      pairs_->interleave(row_of(p_.v, begin + s) + column, later, to, shape_.value);
      std::fill(to + shape_.value, to + stride, 0.0f);
    }
  }

  // The same from codes, whose keys become rows of BF16 as well.
  void widen_pairs(Index begin, Index n) {
    const Index C = p_.k.row.latent, stride = padded(C), key_stride = padded(shape_.qk);
    BF16* keys = reinterpret_cast<BF16*>(keys_);
    for (Index s = 0; s < n; s += 2) {
      const bool two = s + 1 < n;
      const Fp8Row a = row_of(p_.k, begin + s), b = two ? row_of(p_.k, begin + s + 1) : a;
      BF16* key_a = keys + s * key_stride;
      BF16* key_b = key_a + key_stride;
      float* values = values_ + s / 2 * stride;
      for (Index c = 0; c < C; c += kLatentScale) {
        const Index tile = c / kLatentScale;
        pairs_->widen_codes({{a.codes + c, two ? b.codes + c : nullptr},
                             {a.scales[tile], b.scales[tile]},
                             {key_a + c, key_b + c},
                             values + c,
                             std::min(kLatentScale, C - c)});
      }
      std::fill(values + C, values + stride, 0.0f);
      std::copy_n(a.rope, p_.k.row.rope, key_a + C);
      if (two) std::copy_n(b.rope, p_.k.row.rope, key_b + C);
    }
  }

  // The memory of rows [begin, begin + n) of latent rows: one stretch.
  std::span<const char> memory_of(Index begin, Index n) const {
    if constexpr (kFp8) {
      const auto* first = reinterpret_cast<const char*>(row_of(p_.k, begin).begin);
      return {first, static_cast<std::size_t>(n * static_cast<Index>(p_.k.row.bytes()))};
    } else {
      const auto* first = reinterpret_cast<const char*>(row_of(p_.k, begin));
      const std::size_t numbers = static_cast<std::size_t>((n - 1) * row_stride(p_.k) + shape_.qk);
      return {first, numbers * sizeof *row_of(p_.k, begin)};
    }
  }

  // A tile that the one before has not fetched, from front to back, so that the processor fetches
  // ahead: what takes two rows at once sees memory at a third of its speed.
  void touch(Index begin, Index n) const {
    if (!latent() || !next_.empty()) return;
    const std::span<const char> memory = memory_of(begin, n);
    for (std::size_t i = 0; i < memory.size(); i += 64) {
      __builtin_prefetch(memory.data() + i + 2048);
      __asm__ volatile("" : : "r"(memory[i]));
    }
  }

  // Keys [begin, begin + n) and their values where the products take them.
  void load_tile(Index begin, Index n) {
    touch(begin, n);
    if (pairs_) return load_pairs(begin, n);
    key_rows_ = value_rows_ = keys_;
    key_stride_ = value_stride_ = padded(shape_.qk);
    copy_rows(p_.k, begin, n, block_.kv_head * shape_.qk, shape_.qk, keys_);
    if (latent()) return;
    copy_rows(p_.v, begin, n, block_.kv_head * shape_.value, shape_.value, values_);
    value_rows_ = values_;
    value_stride_ = padded(shape_.value);
  }

  // BF16 keys stay where they are.
  void load_pairs(Index begin, Index n) {
    if constexpr (kBf16) {
      pair_values(begin, n);
      key_rows_ = reinterpret_cast<const float*>(row_of(p_.k, begin) + block_.kv_head * shape_.qk);
      key_stride_ = row_stride(p_.k) / 2;
    } else if constexpr (kFp8) {
      widen_pairs(begin, n);
      key_rows_ = keys_;
      key_stride_ = padded(shape_.qk) / 2;
    }
    value_rows_ = values_;
    value_stride_ = padded(shape_.value);
  }

  void copy_rows(const Rows& rows, Index begin, Index n, Index column, Index count, float* to) {
    const Index stride = padded(count);
    for (Index s = 0; s < n; ++s) {
      copy_row(kernels_, rows, begin + s, column, count, to + s * stride);
      std::fill(to + s * stride + count, to + (s + 1) * stride, 0.0f);
    }
  }

  // s = keys q^T; on the diagonal without the columns that see none of the keys.
  void score(Index n_keys, bool masked) {
    const Index depth = pairs_ ? shape_.qk / 2 : shape_.qk;
    const Index trim = masked ? kTrim : n_keys;
    Index column = 0;
    for (Index key = 0; key < n_keys; key += trim) {
      while (column < width() && masked && last_key_[column + kPad - 1] < static_cast<float>(key))
        column += kPad;
      MINKE_ASSERT(column < width());  // the last query sees the last key
      multiply({key_rows_ + key * key_stride_, key_stride_, 1, q_t_ + column, width(),
                s_ + key * width() + column, width(), std::min(trim, n_keys - key),
                width() - column, depth, false, next_.data(), next_.data() + next_.size()});
    }
  }

  // o += s^T values; on the diagonal without the keys that none of the rows sees.
  void add_values(Index begin, Index n_keys, bool masked, bool is_first, float* o) {
    const Index n = padded(shape_.value), group = masked ? kTrim : block_.rows;
    for (Index r = 0; r < block_.rows; r += group) {
      const Index rows = std::min(group, block_.rows - r);
      const Index seen = std::clamp<Index>(position(r + rows - 1) - begin + 1, 0, n_keys);
      multiply({s_ + r, 1, width(), value_rows_, value_stride_, o + r * n, n, rows, n,
                pairs_ ? (seen + 1) / 2 : seen, !is_first});
    }
  }

  void multiply(const SmallProduct& product) const {
    pairs_ ? pairs_->multiply(product) : kernels_.multiply(product);
  }

  const AttentionKernels& kernels_;
  const AttentionShape& shape_;
  const Problem<Rows, Query>& p_;
  const Block& block_;
  float scale_;
  const PairKernels* pairs_;  // or null: everything in FP32
  float *q_t_ = nullptr, *last_key_ = nullptr, *shrink_ = nullptr, *s_ = nullptr;
  float *keys_ = nullptr, *values_ = nullptr;
  const float *key_rows_ = nullptr, *value_rows_ = nullptr;
  Index key_stride_ = 0, value_stride_ = 0;
  std::span<const char> next_;  // memory of the next tile, fetched while this one is scored
};

void add_blocks(const AttentionShape& shape, Index problem, Index T, BlockVector<Block>& blocks) {
  const bool shared = shape.n_kv_heads == 1;
  const Index rows = shared ? T * shape.n_heads : T;
  for (Index head = 0; head < shape.n_kv_heads; ++head)
    for (Index first = 0; first < rows; first += kMostRows)
      blocks.push_back({problem, head, first, std::min(kMostRows, rows - first)});
}

template <class Rows, class Query>
void check(const AttentionShape& s, const Problem<Rows, Query>& p) {
  const Index T = p.q.extent(0);
  if (s.n_kv_heads != 1 && s.n_kv_heads != s.n_heads)
    throw ShapeError(fmt::format("attention_forward: {} key heads for {} heads; expected 1 or {}",
                                 s.n_kv_heads, s.n_heads, s.n_heads));
  check_extents("attention_forward", "q", p.q, {T, s.n_heads * s.qk});
  check_extents("attention_forward", "out", p.out, {T, s.n_heads * s.value});
  if (!p.lse.empty()) check_extents("attention_forward", "lse", p.lse, {T, s.n_heads});
  for (Index rows : {p.k.n_rows, p.v.n_rows})
    if (p.first_position < 0 || rows < p.first_position + T)
      throw ShapeError(
          fmt::format("attention_forward: queries at positions {} to {} but {} key or value rows",
                      p.first_position, p.first_position + T - 1, rows));
}

// A block on one thread, or, where there are fewer blocks than would keep the threads busy, a split
// of a block. Both make the same partial results and merge them in the same order.
template <class Rows, class Query>
void run(const AttentionShape& shape, std::span<const Problem<Rows, Query>> problems, float scale) {
  const AttentionKernels& kernels = attention_kernels();
  BlockVector<Block> blocks;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    check(shape, problems[i]);
    add_blocks(shape, static_cast<Index>(i), problems[i].q.extent(0), blocks);
  }
  const auto pass_of = [&](const Block& b) {
    return BlockPass<Rows, Query>(kernels, shape, problems[static_cast<std::size_t>(b.problem)], b,
                                  scale);
  };
  struct Split {
    Index block, split;
    Index offset;  // of its partial result
  };
  BlockVector<Split> splits;
  Index size = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto pass = pass_of(blocks[b]);
    for (Index s = 0; s < pass.n_splits(); ++s, size += pass.partial_size())
      splits.push_back({static_cast<Index>(b), s, size});
  }
  const Index n_blocks = static_cast<Index>(blocks.size());
  const Index n_splits = static_cast<Index>(splits.size());
  if (n_splits == n_blocks || n_blocks >= 4 * n_threads() || n_threads() == 1) {
    parallel_for(n_blocks, [&](Index b) {
      auto pass = pass_of(blocks[static_cast<std::size_t>(b)]);
      float* memory = attention_scratch(2 * pass.partial_size() + pass.scratch_size());
      const Partial whole = pass.partial_at(memory);
      const Partial next = pass.partial_at(memory + pass.partial_size());
      pass.take_queries(memory + 2 * pass.partial_size());
      pass.attend(0, whole);
      for (Index s = 1; s < pass.n_splits(); ++s) {
        pass.attend(s, next);
        pass.merge(next, whole);
      }
      pass.write(whole);
    });
    return;
  }
  Tensor partials = Tensor::uninitialized({size});
  float* memory = partials.v1().data();
  parallel_for(n_splits, [&](Index i) {
    const Split& s = splits[static_cast<std::size_t>(i)];
    auto pass = pass_of(blocks[static_cast<std::size_t>(s.block)]);
    pass.take_queries(attention_scratch(pass.scratch_size()));
    pass.attend(s.split, pass.partial_at(memory + s.offset));
  });
  BlockVector<Index> first_split(static_cast<std::size_t>(n_blocks) + 1, n_splits);
  for (Index i = n_splits - 1; i >= 0; --i)
    first_split[static_cast<std::size_t>(splits[static_cast<std::size_t>(i)].block)] = i;
  parallel_for(n_blocks, [&](Index b) {
    const auto pass = pass_of(blocks[static_cast<std::size_t>(b)]);
    const Index first = first_split[static_cast<std::size_t>(b)];
    const auto partial = [&](Index s) {
      return pass.partial_at(memory + splits[static_cast<std::size_t>(first + s)].offset);
    };
    for (Index s = 1; s < pass.n_splits(); ++s) pass.merge(partial(s), partial(0));
    pass.write(partial(0));
  });
}

template <class Rows>
void run_one(const AttentionShape& shape, const Problem<Rows>& problem, double scale) {
  run<Rows, float>(shape, std::span(&problem, 1), static_cast<float>(scale));
}

template <class T>
void run_batch(const AttentionShape& shape, std::span<const Index> offsets, View2<const T> q,
               View2<const T> k, View2<const T> v, double scale, View2<float> out,
               View2<float> lse) {
  check_sequences("attention_forward_batch", offsets, q.extent(0));
  check_extents("attention_forward_batch", "k", {k.extent(0)}, {q.extent(0)});
  check_extents("attention_forward_batch", "v", {v.extent(0)}, {q.extent(0)});
  BlockVector<Problem<KeyRows<T>, T>> problems;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    const Index first = offsets[b], n = offsets[b + 1] - first;
    if (n > 0)
      problems.push_back({q.rows(first, n), KeyRows<T>::of(k.rows(first, n)),
                          KeyRows<T>::of(v.rows(first, n)), 0, out.rows(first, n),
                          lse.empty() ? lse : lse.rows(first, n)});
  }
  run<KeyRows<T>, T>(shape, problems, static_cast<float>(scale));
}

}  // namespace

const AttentionKernels& attention_kernels() {
  static const PairKernels tiles = amx::pair_kernels();
  static const auto with = [](const PairKernels* pairs) {
    AttentionKernels k = avx512::attention_kernels;
    k.pairs = pairs;
    return k;
  };
  static const AttentionKernels vectors =
      with(cpu_features().full_rate_bf16 ? &avx512_bf16::pair_kernels : nullptr);
  static const AttentionKernels amx = gemm::tiles_agree() ? with(&tiles) : vectors;
  static constexpr FormTable<AttentionKernels> table{&scalar::attention_kernels,
                                                     &avx2::attention_kernels, &vectors, &amx};
  return table.chosen();
}

float* attention_scratch(Index n) {
  thread_local Tensor memory;
  if (!memory.defined() || memory.size() < n) memory = Tensor::uninitialized({n});
  return memory.v1().data();
}

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<float> k,
                       KeyRows<float> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse) {
  run_one<KeyRows<float>>(shape, {q, k, v, first_position, out, lse}, scale);
}

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<BF16> k,
                       KeyRows<BF16> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse) {
  run_one<KeyRows<BF16>>(shape, {q, k, v, first_position, out, lse}, scale);
}

void attention_forward(const AttentionShape& shape, View2<const float> q, const Fp8LatentRows& rows,
                       Index first_position, double scale, View2<float> out, View2<float> lse) {
  if (shape.n_kv_heads != 1 || rows.row.dtype != DType::F8_E4M3 || shape.qk != rows.row.width() ||
      shape.value != rows.row.latent)
    throw ShapeError(fmt::format(
        "attention_forward: {} key heads of {} and {}, but rows in FP8 hold {} + {} numbers for "
        "all heads",
        shape.n_kv_heads, shape.qk, shape.value, rows.row.latent, rows.row.rope));
  run_one<Fp8LatentRows>(shape, {q, rows, rows, first_position, out, lse}, scale);
}

void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const float> q, View2<const float> k, View2<const float> v,
                             double scale, View2<float> out, View2<float> lse) {
  run_batch(shape, offsets, q, k, v, scale, out, lse);
}

void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const BF16> q, View2<const BF16> k, View2<const BF16> v,
                             double scale, View2<float> out, View2<float> lse) {
  run_batch(shape, offsets, q, k, v, scale, out, lse);
}

}  // namespace minke

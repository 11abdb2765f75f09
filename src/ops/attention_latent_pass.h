// Latent rows in BF16 or FP8, multiplied as pairs: a row is key and value of all heads. For ops/
// only.
//
// Of a split first all scores, then one softmax, then the values, so that a block of sums stays in
// registers over all of its keys. Rows in BF16 are keys where they lie; codes become such rows in
// scratch first, each code once. Values are interleaved by twos, some columns of the split at a
// time.
//
// Rows are met in memory: while the scores of a tile are formed the next one is fetched.
#pragma once
#include <array>
#include <span>
#include <type_traits>

#include "ops/attention_block.h"
#include "ops/elementwise.h"

namespace minke::attention {

template <class Problem>
class LatentPass : public BlockRows<Problem> {
  using Base = BlockRows<Problem>;
  using Rows = typename Problem::Rows;
  static_assert(std::is_same_v<typename Problem::Query, float>);

 public:
  static bool takes(const AttentionKernels& kernels, const AttentionShape& shape,
                    const Problem& p) {
    if (!kernels.pairs || shape.n_kv_heads != 1 || shape.qk % 2 != 0 || shape.value > shape.qk)
      return false;
    if constexpr (!kFp8) return row_stride(p.k) % 2 == 0 && p.k.n_rows > 0 && same_rows(p.k, p.v);
    return true;
  }

  LatentPass(const AttentionKernels& kernels, const AttentionShape& shape, const Problem& problem,
             const Block& block, float scale)
      : Base(kernels, shape, problem, block, scale), pairs_(*kernels.pairs) {}

  using Base::width;
  Index scratch_size() const {
    return width() * (padded(shape_.qk) + 2 + kSplit) + kSplit / 2 * kColumns +
           (kFp8 ? kSplit * key_stride() : 0) + (pairs_.turns ? width() * kSplit / 2 : 0);
  }

  // The queries, into the scratch that all splits of this thread use.
  void take_queries(float* scratch) {
    q_ = scratch;
    last_key_ = q_ + width() * padded(shape_.qk);
    shrink_ = last_key_ + width();
    s_ = shrink_ + width();
    values_ = s_ + width() * kSplit;
    keys_ = values_ + kSplit / 2 * kColumns;
    turned_ = keys_ + (kFp8 ? kSplit * key_stride() : 0);
    if (pairs_.dots)
      round_queries();
    else
      this->transpose_pairs(q_);
  }

  void attend(Index split, const Partial& result) {
    this->begin(result, width());
    const Index begin = split * kSplit, end = this->end_of(split), n_keys = end - begin;
    for (Index tile = 0; tile < n_keys; tile += kKeyTile)
      score(begin + tile, std::min(kKeyTile, n_keys - tile), end, tile);
    const bool masked = end - 1 > position(0);
    if (masked) this->fill_last_keys(begin, last_key_);
    kernels_.softmax_step(
        {s_, width(), n_keys, scale_, masked, last_key_, result.top, result.total, shrink_});
    this->pair_up_rows(n_keys, s_);
    add_values(begin, n_keys, result.o);
  }

 private:
  using Base::block_;
  using Base::kernels_;
  using Base::p_;
  using Base::position;
  using Base::scale_;
  using Base::shape_;
  static constexpr Index kColumns = 128;  // of values at a time
  static constexpr bool kFp8 = std::is_same_v<Rows, Fp8LatentRows>;

  // Floats of a row of queries or widened keys.
  Index key_stride() const { return padded(shape_.qk) / 2; }

  // Rows of BF16; zeros where there are no more rows.
  void round_queries() {
    std::fill_n(q_, width() * key_stride(), 0.0f);
    for (Index r = 0; r < block_.rows; ++r)
      elementwise().narrow(this->query(r), reinterpret_cast<BF16*>(q_ + r * key_stride()),
                           shape_.qk);
  }

  // s = keys q^T of the tile that begins at row `tile` of the split.
  void score(Index begin, Index n, Index end, Index tile) {
    const std::span<const char> next = this->fetch(begin, n, end);
    if constexpr (kFp8) widen(begin, n, tile);
    SmallProduct product{keys_at(begin, tile),
                         keys_stride(),
                         1,
                         q_,
                         width(),
                         s_ + tile * width(),
                         width(),
                         n,
                         width(),
                         shape_.qk / 2,
                         false,
                         next.data(),
                         next.data() + next.size()};
    if (!pairs_.dots) return pairs_.multiply(product);
    product.b_stride = key_stride();
    pairs_.dots(product);
  }

  // o = p^T values.
  void add_values(Index begin, Index n_keys, float* o) {
    const Index stride = padded(shape_.value), n_pairs = (n_keys + 1) / 2;
    SmallProduct product{s_,     1,           width(), values_, kColumns, o,
                         stride, block_.rows, 0,       n_pairs, false};
    if (pairs_.turns) {
      turn(n_pairs);
      product.a = turned_, product.a_row = kSplit / 2, product.a_k = 1;
    }
    for (Index c = 0; c < shape_.value; c += kColumns) {
      const Index n = std::min(kColumns, shape_.value - c);
      for (Index tile = 0; tile < n_keys; tile += kKeyTile)
        pairs_.interleave({reinterpret_cast<const BF16*>(keys_at(begin + tile, tile)) + c,
                           2 * keys_stride(), std::min(kKeyTile, n_keys - tile), n,
                           values_ + tile / 2 * kColumns, kColumns});
      product.c = o + c;
      product.columns = padded(n);
      pairs_.multiply(product);
    }
  }

  // The probabilities of a query row side by side.
  void turn(Index n_pairs) const {
    std::array<const float*, kSplit / 2> rows{};
    for (Index i = 0; i < n_pairs; ++i) rows[static_cast<std::size_t>(i)] = s_ + i * width();
    kernels_.transpose(rows.data(), n_pairs, block_.rows, turned_, kSplit / 2);
  }

  // Where the rows of BF16 of a tile are.
  const float* keys_at(Index begin, Index tile) const {
    if constexpr (kFp8)
      return keys_ + tile * key_stride();
    else
      return reinterpret_cast<const float*>(row_of(p_.k, begin));
  }
  Index keys_stride() const {
    if constexpr (kFp8)
      return key_stride();
    else
      return row_stride(p_.k) / 2;
  }

  // The codes of a tile as rows of BF16.
  void widen(Index begin, Index n, Index tile) {
    const Index C = shape_.value;
    for (Index s = 0; s < n; ++s) {
      const Fp8Row row = row_of(p_.k, begin + s);
      BF16* const key = reinterpret_cast<BF16*>(keys_ + (tile + s) * key_stride());
      for (Index c = 0; c < C; c += kLatentScale)
        pairs_.widen_codes(row.codes + c, row.scales[c / kLatentScale], key + c,
                           std::min(kLatentScale, C - c));
      std::copy_n(row.rope, p_.k.row.rope, key + C);
    }
  }

  const PairKernels& pairs_;
  float *q_ = nullptr, *last_key_ = nullptr, *s_ = nullptr;
  float* shrink_ = nullptr;  // not read: a softmax of one step
  float *keys_ = nullptr, *values_ = nullptr, *turned_ = nullptr;
};

}  // namespace minke::attention

// One tile of keys after the other, in any arithmetic. For ops/ only.
//
// Keys and values of a tile are copied (widened) to dense scratch; a value row that begins a key
// row is not copied again. Rows in BF16 may be multiplied as pairs: keys where they lie, values
// interleaved by twos; probabilities, and queries in FP32, are rounded for it.
#pragma once
#include <span>
#include <type_traits>

#include "ops/attention_block.h"

namespace minke::attention {

template <class Problem>
class BlockPass : public BlockRows<Problem> {
  using Base = BlockRows<Problem>;
  using Query = typename Problem::Query;
  using Rows = typename Problem::Rows;

 public:
  BlockPass(const AttentionKernels& kernels, const AttentionShape& shape, const Problem& problem,
            const Block& block, float scale)
      : Base(kernels, shape, problem, block, scale),
        pairs_(multiplies_pairs() ? kernels.pairs : nullptr) {}

  using Base::width;
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
    if (pairs_)
      this->transpose_pairs(q_t_);
    else if constexpr (std::is_same_v<Query, float>)
      this->transpose([&](Index r) { return this->query(r); }, shape_.qk, q_t_);
    else
      widen_queries();
  }

  void attend(Index split, const Partial& result) {
    this->begin(result, width());
    const Index end = this->end_of(split);
    for (Index begin = split * kSplit; begin < end; begin += kKeyTile)
      add_tile(begin, std::min(kKeyTile, end - begin), end, begin == split * kSplit, result);
  }

 private:
  using Base::block_;
  using Base::kernels_;
  using Base::p_;
  using Base::position;
  using Base::scale_;
  using Base::shape_;
  static constexpr Index kTrim = 8;  // granularity of what is left out above the diagonal
  static constexpr bool kBf16 = std::is_same_v<Rows, KeyRows<BF16>>;

  // Whether a row is key and value of all heads.
  bool latent() const {
    return this->shared() && same_rows(p_.k, p_.v) && shape_.value <= shape_.qk;
  }
  bool multiplies_pairs() const {
    if constexpr (kBf16)
      return row_stride(p_.k) % 2 == 0 && shape_.qk % 2 == 0 &&
             (std::is_same_v<Query, float> || p_.q.stride(0) % 2 == 0);
    return false;
  }

  void add_tile(Index begin, Index n_keys, Index end, bool is_first, const Partial& result) {
    std::span<const char> next;
    if (latent()) next = this->fetch(begin, n_keys, end);
    load_tile(begin, n_keys);
    const bool masked = begin + n_keys - 1 > position(0);
    if (masked) this->fill_last_keys(begin, last_key_);
    score(n_keys, masked, masked ? std::span<const char>() : next);
    kernels_.softmax_step(
        {s_, width(), n_keys, scale_, masked, last_key_, result.top, result.total, shrink_});
    if (pairs_) this->pair_up_rows(n_keys, s_);
    if (!is_first) this->shrink(shrink_, result.o);
    add_values(begin, n_keys, masked, is_first, result.o);
  }

  // As many columns of queries in BF16 at a time as the place of the scores holds.
  void widen_queries() {
    for (Index c = 0; c < shape_.qk; c += kKeyTile) {
      const Index n = std::min(kKeyTile, shape_.qk - c);
      for (Index r = 0; r < block_.rows; ++r)
        kernels_.widen(this->query(r) + c, s_ + r * kKeyTile, n);
      this->transpose([&](Index r) { return s_ + r * kKeyTile; }, n, q_t_ + c * width());
    }
  }

  // Keys [begin, begin + n) and their values where the products take them.
  void load_tile(Index begin, Index n) {
    if (pairs_) return load_pairs(begin, n);
    key_rows_ = value_rows_ = keys_;
    key_stride_ = value_stride_ = padded(shape_.qk);
    copy_rows(p_.k, begin, n, block_.kv_head * shape_.qk, shape_.qk, keys_);
    if (latent()) return;
    copy_rows(p_.v, begin, n, block_.kv_head * shape_.value, shape_.value, values_);
    value_rows_ = values_;
    value_stride_ = padded(shape_.value);
  }

  // Keys stay where they are.
  void load_pairs(Index begin, Index n) {
    if constexpr (kBf16) {
      value_rows_ = values_;
      value_stride_ = padded(shape_.value);
      pairs_->interleave({row_of(p_.v, begin) + block_.kv_head * shape_.value, row_stride(p_.v), n,
                          shape_.value, values_, value_stride_});
      key_rows_ = reinterpret_cast<const float*>(row_of(p_.k, begin) + block_.kv_head * shape_.qk);
      key_stride_ = row_stride(p_.k) / 2;
    }
  }

  void copy_rows(const Rows& rows, Index begin, Index n, Index column, Index count, float* to) {
    const Index stride = padded(count);
    for (Index s = 0; s < n; ++s) {
      copy_row(kernels_, rows, begin + s, column, count, to + s * stride);
      std::fill(to + s * stride + count, to + (s + 1) * stride, 0.0f);
    }
  }

  // s = keys q^T; on the diagonal without the columns that see none of the keys.
  void score(Index n_keys, bool masked, std::span<const char> next) {
    const Index depth = pairs_ ? shape_.qk / 2 : shape_.qk;
    const Index trim = masked ? kTrim : n_keys;
    Index column = 0;
    for (Index key = 0; key < n_keys; key += trim) {
      while (column < width() && masked && last_key_[column + kPad - 1] < static_cast<float>(key))
        column += kPad;
      MINKE_ASSERT(column < width());  // the last query sees the last key
      multiply({key_rows_ + key * key_stride_, key_stride_, 1, q_t_ + column, width(),
                s_ + key * width() + column, width(), std::min(trim, n_keys - key),
                width() - column, depth, false, next.data(), next.data() + next.size()});
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

  const PairKernels* pairs_;  // or null: everything in FP32
  float *q_t_ = nullptr, *last_key_ = nullptr, *shrink_ = nullptr, *s_ = nullptr;
  float *keys_ = nullptr, *values_ = nullptr;
  const float *key_rows_ = nullptr, *value_rows_ = nullptr;
  Index key_stride_ = 0, value_stride_ = 0;
};

}  // namespace minke::attention

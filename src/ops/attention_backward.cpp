// The backward pass: a head of a sequence is one piece of work, so that the sums of dq over key
// tiles and of dk, dv over query blocks have a fixed order. Per pair of a key tile and a query
// block five products are formed, with scores s [query rows, keys] this time:
//   s = q k^T,  dp = dout v^T,  p and ds in place,  dv += p^T dout,  dk += ds^T q,  dq += ds k
//
// An operand is summed over along its rows in one product and over its rows in another. Operands in
// BF16 are multiplied as pairs where the processor does that at full rate (PairKernels): then each
// lies twice in scratch, with pairs along its rows and, interleaved, over them; dout, p and ds are
// rounded for it. Otherwise everything is FP32 and lies there once.
//
// Queries, dout and dq of the head and the tile's keys lie dense in scratch (0.5 MiB at 512
// positions of 96 + 64: the second cache), the tile's keys and values also transposed.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "base/threads.h"
#include "ops/attention_kernels.h"
#include "ops/check_extents.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kPad = 16;
constexpr Index kTrim = 16;  // granularity of what is left out above the diagonal

Index padded(Index n) {
  return (n + kPad - 1) / kPad * kPad;
}

template <class T>
struct Operands {  // one head of one sequence; T is float or BF16
  View2<const T> q, k, v;
  View2<const float> out, dout;
  View2<float> dq, dk, dv;
  const float* lse;
  Index lse_stride;
};

// Rows of numbers of width `stride`, zero from the last number on. `along` has them as they are,
// one or two numbers a float; `across` one or two rows in a row of floats.
struct Rows {
  float *along, *across;
  Index stride;
};

void copy_out(const float* from, Index stride, View2<float> to) {
  for (Index t = 0; t < to.extent(0); ++t)
    std::copy(from + t * stride, from + t * stride + to.extent(1), to.data() + t * to.stride(0));
}

template <class T>
class HeadPass {
 public:
  HeadPass(const AttentionKernels& kernels, const AttentionShape& shape, const Operands<T>& x,
           float scale)
      : kernels_(kernels),
        pairs_(std::is_same_v<T, BF16> ? kernels.pairs : nullptr),
        together_(pairs_ ? 2 : 1),
        shape_(shape),
        x_(x),
        scale_(scale),
        S_(x.q.extent(0)) {
    const Index rows = padded(S_), qk = padded(shape.qk), value = padded(shape.value);
    memory_ = attention_scratch(rows * (2 * qk + value + 1) + value +
                                kKeyTile * (3 * qk + 3 * value + 4 * kKeyTile));
    q_ = take_rows(rows, qk);
    dout_ = take_rows(rows, value);
    dq_ = take(rows * qk);
    delta_ = take(rows);
    scaled_ = take(value);
    keys_ = take_rows(kKeyTile, qk);
    values_ = take_rows(kKeyTile, value);
    dk_ = take(kKeyTile * qk);
    dv_ = take(kKeyTile * value);
    keys_t_ = take(kKeyTile * qk);
    values_t_ = take(kKeyTile * value);
    s_ = take(kKeyTile * kKeyTile);
    dp_ = take(kKeyTile * kKeyTile);
    p_across_ = pairs_ ? take(kKeyTile * kKeyTile / 2) : s_;
    ds_ = pairs_ ? take_rows(kKeyTile, kKeyTile) : Rows{dp_, dp_, kKeyTile};
  }

  void run() {
    load(x_.q, q_);
    load_dout();
    std::fill_n(dq_, S_ * q_.stride, 0.0f);
    for (Index key = 0; key < S_; key += kKeyTile) {
      const Index n_keys = std::min(kKeyTile, S_ - key);
      load(x_.k.rows(key, n_keys), keys_);
      load(x_.v.rows(key, n_keys), values_);
      transpose(keys_, n_keys, shape_.qk, keys_t_);
      transpose(values_, n_keys, shape_.value, values_t_);
      std::fill_n(dk_, kKeyTile * q_.stride, 0.0f);
      std::fill_n(dv_, kKeyTile * dout_.stride, 0.0f);
      for (Index query = key; query < S_; query += kKeyTile)
        add_pair(query, std::min(kKeyTile, S_ - query), n_keys, query == key);
      copy_out(dk_, q_.stride, x_.dk.rows(key, n_keys));
      copy_out(dv_, dout_.stride, x_.dv.rows(key, n_keys));
    }
    copy_out(dq_, q_.stride, x_.dq);
  }

 private:
  float* take(Index n) { return std::exchange(memory_, memory_ + n); }
  Rows take_rows(Index rows, Index width) {
    float* const along = take(rows * width / together_);
    return {along, pairs_ ? take(rows * width / together_) : along, width};
  }

  // Floats that hold n numbers along a sum.
  Index terms(Index n) const { return (n + together_ - 1) / together_; }
  float* row(const Rows& rows, Index r) const { return rows.along + r * (rows.stride / together_); }
  const float* pair_row(const Rows& rows, Index r) const {
    return rows.across + r / together_ * rows.stride;
  }

  template <class From>
  void load(View2<const From> from, const Rows& to) {
    const Index n = from.extent(1);
    for (Index t = 0; t < from.extent(0); ++t) {
      const From* x = from.data() + t * from.stride(0);
      if (pairs_) {
        BF16* const y = reinterpret_cast<BF16*>(row(to, t));
        narrow(x, n, y);
        std::fill(y + n, y + to.stride, BF16(0));
      } else {
        widen(x, n, row(to, t));
        std::fill(row(to, t) + n, row(to, t) + to.stride, 0.0f);
      }
    }
    interleave(to, from.extent(0));
  }
  static void narrow(const BF16* x, Index n, BF16* y) { std::copy_n(x, n, y); }
  static void narrow(const float* x, Index n, BF16* y) { elementwise().narrow(x, y, n); }
  void widen(const BF16* x, Index n, float* y) const { kernels_.widen(x, y, n); }
  static void widen(const float* x, Index n, float* y) { std::copy_n(x, n, y); }

  void interleave(const Rows& x, Index rows) {
    if (pairs_)
      pairs_->interleave(
          {reinterpret_cast<const BF16*>(x.along), x.stride, rows, x.stride, x.across, x.stride});
  }

  void load_dout() {
    load(x_.dout, dout_);
    for (Index t = 0; t < S_; ++t)
      delta_[t] = elementwise().to_f32.scale_and_dot(1, x_.dout[t].data(), x_.out[t].data(),
                                                     scaled_, shape_.value);
  }

  // to [terms of the width, kKeyTile], zero beyond the rows.
  void transpose(const Rows& from, Index n, Index width, float* to) {
    std::array<const float*, kKeyTile> rows{};
    for (Index t = 0; t < n; ++t) rows[static_cast<std::size_t>(t)] = row(from, t);
    kernels_.transpose(rows.data(), n, terms(width), to, kKeyTile);
  }

  void add_pair(Index query, Index rows, Index n_keys, bool diagonal) {
    const Index group = diagonal ? kTrim : kKeyTile, qk = q_.stride, value = dout_.stride;
    for (Index r = 0; r < rows; r += group) {
      const Index n = std::min(group, rows - r), seen = diagonal ? padded(r + n) : padded(n_keys);
      multiply({row(q_, query + r), qk / together_, 1, keys_t_, kKeyTile, s_ + r * kKeyTile,
                kKeyTile, n, seen, terms(shape_.qk), false});
      multiply({row(dout_, query + r), value / together_, 1, values_t_, kKeyTile,
                dp_ + r * kKeyTile, kKeyTile, n, seen, terms(shape_.value), false});
    }
    for (Index r = 0; r < rows; ++r)
      kernels_.softmax_backward({s_ + r * kKeyTile, dp_ + r * kKeyTile, padded(n_keys),
                                 diagonal ? r : n_keys - 1, scale_,
                                 x_.lse[(query + r) * x_.lse_stride], delta_[query + r]});
    if (pairs_) round_scores(rows, padded(n_keys));
    for (Index key = 0; key < n_keys; key += group) {
      const Index n = std::min(group, n_keys - key), from = diagonal ? key : 0;
      const Index at = from / together_ * kKeyTile + key, depth = terms(rows - from);
      multiply({p_across_ + at, 1, kKeyTile, pair_row(dout_, query + from), value,
                dv_ + key * value, value, n, value, depth, true});
      multiply({ds_.across + at, 1, kKeyTile, pair_row(q_, query + from), qk, dk_ + key * qk, qk, n,
                qk, depth, true});
    }
    for (Index r = 0; r < rows; r += group) {
      const Index n = std::min(group, rows - r), seen = diagonal ? r + n : n_keys;
      multiply({row(ds_, r), kKeyTile / together_, 1, keys_.across, qk, dq_ + (query + r) * qk, qk,
                n, qk, terms(seen), true});
    }
  }

  // p and ds of `columns` keys as pairs; beyond the last row are zeros.
  void round_scores(Index rows, Index columns) {
    if (rows % 2 == 1)
      for (float* x : {s_, dp_}) std::fill_n(x + rows * kKeyTile, columns, 0.0f);
    for (Index r = 0; r < rows; r += 2)
      pairs_->pair_up(s_ + r * kKeyTile, s_ + (r + 1) * kKeyTile, p_across_ + r / 2 * kKeyTile,
                      columns);
    for (Index r = 0; r < rows; r += 2)
      pairs_->pair_up(dp_ + r * kKeyTile, dp_ + (r + 1) * kKeyTile, ds_.across + r / 2 * kKeyTile,
                      columns);
    for (Index r = 0; r < rows; ++r)
      narrow(dp_ + r * kKeyTile, columns, reinterpret_cast<BF16*>(row(ds_, r)));
  }

  void multiply(const SmallProduct& product) const {
    pairs_ ? pairs_->multiply(product) : kernels_.multiply(product);
  }

  const AttentionKernels& kernels_;
  const PairKernels* pairs_;  // or null: everything in FP32
  const Index together_;      // numbers in a float
  const AttentionShape& shape_;
  const Operands<T>& x_;
  float scale_;
  Index S_;
  float* memory_;              // of the scratch, what is not yet taken
  Rows q_, dout_;              // [S, padded width]
  float* dq_;                  // [S, padded width]
  float* delta_;               // [S]
  float* scaled_;              // [value], not read
  Rows keys_, values_;         // [kKeyTile, padded width]
  float *dk_, *dv_;            // the same
  float *keys_t_, *values_t_;  // [terms of the width, kKeyTile]
  float *s_, *dp_;             // [kKeyTile, kKeyTile]
  float* p_across_;            // p and ds as operands
  Rows ds_;
};

template <class T>
void run_batch(const AttentionShape& shape, std::span<const Index> offsets, View2<const T> q,
               View2<const T> k, View2<const T> v, View2<const float> out, View2<const float> lse,
               View2<const float> dout, double scale, View2<float> dq, View2<float> dk,
               View2<float> dv) {
  const char* name = "attention_backward";
  const Index rows = q.extent(0), H = shape.n_heads;
  if (shape.n_kv_heads != H)
    throw ShapeError(
        fmt::format("{}: {} key heads for {} heads; expected as many", name, shape.n_kv_heads, H));
  check_sequences(name, offsets, rows);
  for (const View2<const T>& x : {q, k}) check_extents(name, "q or k", x, {rows, H * shape.qk});
  for (const View2<float>& x : {dq, dk}) check_extents(name, "dq or dk", x, {rows, H * shape.qk});
  check_extents(name, "v", v, {rows, H * shape.value});
  for (const View2<const float>& x : {out, dout, View2<const float>(dv)})
    check_extents(name, "out, dout or dv", x, {rows, H * shape.value});
  check_extents(name, "lse", lse, {rows, H});
  const AttentionKernels& kernels = attention_kernels();
  parallel_for((std::ssize(offsets) - 1) * H, [&](Index i) {
    const auto b = static_cast<std::size_t>(i / H);
    const Index first = offsets[b], n = offsets[b + 1] - first, h = i % H;
    if (n == 0) return;
    const auto head_of = [&](auto x, Index width) {
      return x.rows(first, n).columns(h * width, width);
    };
    const Operands<T> x{head_of(q, shape.qk),
                        head_of(k, shape.qk),
                        head_of(v, shape.value),
                        head_of(out, shape.value),
                        head_of(dout, shape.value),
                        head_of(dq, shape.qk),
                        head_of(dk, shape.qk),
                        head_of(dv, shape.value),
                        lse.data() + first * lse.stride(0) + h,
                        lse.stride(0)};
    HeadPass<T>(kernels, shape, x, static_cast<float>(scale)).run();
  });
}

}  // namespace

void attention_backward(const AttentionShape& shape, View2<const float> q, View2<const float> k,
                        View2<const float> v, View2<const float> out, View2<const float> lse,
                        View2<const float> dout, double scale, View2<float> dq, View2<float> dk,
                        View2<float> dv) {
  const std::array<Index, 2> offsets{0, q.extent(0)};
  attention_backward_batch(shape, offsets, q, k, v, out, lse, dout, scale, dq, dk, dv);
}

void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const float> q, View2<const float> k, View2<const float> v,
                              View2<const float> out, View2<const float> lse,
                              View2<const float> dout, double scale, View2<float> dq,
                              View2<float> dk, View2<float> dv) {
  run_batch(shape, offsets, q, k, v, out, lse, dout, scale, dq, dk, dv);
}

void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const BF16> q, View2<const BF16> k, View2<const BF16> v,
                              View2<const float> out, View2<const float> lse,
                              View2<const float> dout, double scale, View2<float> dq,
                              View2<float> dk, View2<float> dv) {
  run_batch(shape, offsets, q, k, v, out, lse, dout, scale, dq, dk, dv);
}

}  // namespace minke

// The backward pass: a head of a sequence is one piece of work, so that the sums of dq over key
// tiles and of dk, dv over query blocks have a fixed order. Per pair of a key tile and a query
// block five products are formed, with scores s [query rows, keys] this time:
//   s = q k^T,  dp = dout v^T,  p and ds in place,  dv += p^T dout,  dk += ds^T q,  dq += ds k
// Queries, dout and dq of the head and the tile's keys lie dense in scratch (0.5 MiB at 512
// positions of 96 + 64: the second cache), the tile's keys and values also transposed.
#include <fmt/format.h>

#include <algorithm>
#include <array>
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

struct Operands {  // one head of one sequence
  View2<const float> q, k, v, out, dout;
  View2<float> dq, dk, dv;
  const float* lse;
  Index lse_stride;
};

void copy_in(View2<const float> from, float* to, Index stride) {
  for (Index t = 0; t < from.extent(0); ++t) {
    const float* row = from.data() + t * from.stride(0);
    std::copy(row, row + from.extent(1), to + t * stride);
    std::fill(to + t * stride + from.extent(1), to + (t + 1) * stride, 0.0f);
  }
}

void copy_out(const float* from, Index stride, View2<float> to) {
  for (Index t = 0; t < to.extent(0); ++t)
    std::copy(from + t * stride, from + t * stride + to.extent(1), to.data() + t * to.stride(0));
}

// to [columns, kKeyTile], zero beyond the rows.
void transpose(const AttentionKernels& kernels, View2<const float> from, float* to) {
  std::array<const float*, kKeyTile> rows{};
  for (Index t = 0; t < from.extent(0); ++t)
    rows[static_cast<std::size_t>(t)] = from.data() + t * from.stride(0);
  kernels.transpose(rows.data(), from.extent(0), from.extent(1), to, kKeyTile);
}

class HeadPass {
 public:
  HeadPass(const AttentionKernels& kernels, const AttentionShape& shape, const Operands& x,
           float scale)
      : kernels_(kernels), shape_(shape), x_(x), scale_(scale), S_(x.q.extent(0)) {
    float* next =
        attention_scratch(S_ * (2 * qk() + value() + 1) +
                          kKeyTile * (2 * qk() + value() + shape.qk + shape.value + 2 * kKeyTile));
    const auto take = [&](Index n) { return std::exchange(next, next + n); };
    q_ = take(S_ * qk());
    dq_ = take(S_ * qk());
    dout_ = take(S_ * value());
    keys_ = take(kKeyTile * qk());
    dk_ = take(kKeyTile * qk());
    dv_ = take(kKeyTile * value());
    keys_t_ = take(kKeyTile * shape.qk);
    values_t_ = take(kKeyTile * shape.value);
    s_ = take(kKeyTile * kKeyTile);
    dp_ = take(kKeyTile * kKeyTile);
    delta_ = take(S_);
  }

  void run() {
    copy_in(x_.q, q_, qk());
    copy_in(x_.dout, dout_, value());
    std::fill_n(dq_, S_ * qk(), 0.0f);
    for (Index t = 0; t < S_; ++t)
      delta_[t] = elementwise().scale_and_dot(1, x_.dout[t].data(), x_.out[t].data(),
                                              dout_ + t * value(), shape_.value);
    for (Index key = 0; key < S_; key += kKeyTile) {
      const Index n_keys = std::min(kKeyTile, S_ - key);
      copy_in(x_.k.rows(key, n_keys), keys_, qk());
      transpose(kernels_, x_.k.rows(key, n_keys), keys_t_);
      transpose(kernels_, x_.v.rows(key, n_keys), values_t_);
      std::fill_n(dk_, kKeyTile * qk(), 0.0f);
      std::fill_n(dv_, kKeyTile * value(), 0.0f);
      for (Index query = key; query < S_; query += kKeyTile)
        add_pair(query, std::min(kKeyTile, S_ - query), n_keys, query == key);
      copy_out(dk_, qk(), x_.dk.rows(key, n_keys));
      copy_out(dv_, value(), x_.dv.rows(key, n_keys));
    }
    copy_out(dq_, qk(), x_.dq);
  }

 private:
  Index qk() const { return padded(shape_.qk); }
  Index value() const { return padded(shape_.value); }

  void add_pair(Index query, Index rows, Index n_keys, bool diagonal) {
    const float *q = q_ + query * qk(), *dout = dout_ + query * value();
    float* dq = dq_ + query * qk();
    const Index group = diagonal ? kTrim : kKeyTile;
    for (Index r = 0; r < rows; r += group) {
      const Index n = std::min(group, rows - r), seen = diagonal ? padded(r + n) : padded(n_keys);
      kernels_.multiply({q + r * qk(), qk(), 1, keys_t_, kKeyTile, s_ + r * kKeyTile, kKeyTile, n,
                         seen, shape_.qk, false});
      kernels_.multiply({dout + r * value(), value(), 1, values_t_, kKeyTile, dp_ + r * kKeyTile,
                         kKeyTile, n, seen, shape_.value, false});
    }
    for (Index r = 0; r < rows; ++r)
      kernels_.softmax_backward({s_ + r * kKeyTile, dp_ + r * kKeyTile, padded(n_keys),
                                 diagonal ? r : n_keys - 1, scale_,
                                 x_.lse[(query + r) * x_.lse_stride], delta_[query + r]});
    for (Index key = 0; key < n_keys; key += group) {
      const Index n = std::min(group, n_keys - key), from = diagonal ? key : 0;
      const Index at = from * kKeyTile + key;
      kernels_.multiply({s_ + at, 1, kKeyTile, dout + from * value(), value(), dv_ + key * value(),
                         value(), n, value(), rows - from, true});
      kernels_.multiply({dp_ + at, 1, kKeyTile, q + from * qk(), qk(), dk_ + key * qk(), qk(), n,
                         qk(), rows - from, true});
    }
    for (Index r = 0; r < rows; r += group) {
      const Index n = std::min(group, rows - r), seen = diagonal ? r + n : n_keys;
      kernels_.multiply(
          {dp_ + r * kKeyTile, kKeyTile, 1, keys_, qk(), dq + r * qk(), qk(), n, qk(), seen, true});
    }
  }

  const AttentionKernels& kernels_;
  const AttentionShape& shape_;
  const Operands& x_;
  float scale_;
  Index S_;
  float *q_, *dq_, *dout_;     // [S, padded width]
  float *keys_, *dk_, *dv_;    // [kKeyTile, padded width]
  float *keys_t_, *values_t_;  // [width, kKeyTile]
  float *s_, *dp_;             // [kKeyTile, kKeyTile]
  float* delta_;               // [S]
};

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
  const char* name = "attention_backward";
  const Index rows = q.extent(0), H = shape.n_heads;
  if (shape.n_kv_heads != H)
    throw ShapeError(
        fmt::format("{}: {} key heads for {} heads; expected as many", name, shape.n_kv_heads, H));
  check_sequences(name, offsets, rows);
  for (const View2<const float>& x : {q, k, View2<const float>(dq), View2<const float>(dk)})
    check_extents(name, "q, k, dq or dk", x, {rows, H * shape.qk});
  for (const View2<const float>& x : {v, out, dout, View2<const float>(dv)})
    check_extents(name, "v, out, dout or dv", x, {rows, H * shape.value});
  check_extents(name, "lse", lse, {rows, H});
  const AttentionKernels& kernels = attention_kernels();
  parallel_for((std::ssize(offsets) - 1) * H, [&](Index i) {
    const auto b = static_cast<std::size_t>(i / H);
    const Index first = offsets[b], n = offsets[b + 1] - first, h = i % H;
    if (n == 0) return;
    const auto head_of = [&](auto x, Index width) {
      return x.rows(first, n).columns(h * width, width);
    };
    const Operands x{head_of(q, shape.qk),
                     head_of(k, shape.qk),
                     head_of(v, shape.value),
                     head_of(out, shape.value),
                     head_of(dout, shape.value),
                     head_of(dq, shape.qk),
                     head_of(dk, shape.qk),
                     head_of(dv, shape.value),
                     lse.data() + first * lse.stride(0) + h,
                     lse.stride(0)};
    HeadPass(kernels, shape, x, static_cast<float>(scale)).run();
  });
}

}  // namespace minke

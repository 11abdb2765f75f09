// Causal softmax attention, tiled so that scores never reach memory.
//   o[t] = sum_s p[t, s] v[s],   p[t] = softmax_s(scale * q[t] . k[s]),   s <= first_position + t
//
// Keys and values may be shared by several query heads (n_kv_heads < n_heads): latent attention in
// its absorbed form is the case n_kv_heads = 1, where one cache row is both key and value.
//
// Numeric contract: sums in FP32; key tiles begin at fixed positions (multiples of kKeyTile), so
// the bits of row t depend on q[t], its position and the keys it sees, not on the other rows of the
// call, the chunking of a prompt, or the number of threads.
#pragma once
#include <span>

#include "ops/latent_rows.h"
#include "tensor/tensor.h"

namespace minke {

inline constexpr Index kKeyTile = 64;  // rows of a key tile, and of a page of the latent cache

struct AttentionShape {
  Index n_heads;     // H
  Index n_kv_heads;  // 1 (shared by all heads) or H
  Index qk;          // width of a query or key head
  Index value;       // width of a value head
};

// Key or value rows: one strided block, or pages of kKeyTile rows that lie anywhere. A value row
// may be the beginning of a key row.
template <class T>
struct KeyRows {
  View2<const T> block;             // [S, n_kv_heads * width], when pages is empty
  std::span<const T* const> pages;  // page p holds rows [64 p, 64 p + 64)
  Index page_stride = 0;            // elements between two rows of a page
  Index n_rows = 0;                 // S
  static KeyRows of(View2<const T> rows) { return {rows, {}, 0, rows.extent(0)}; }
  static KeyRows of(std::span<const T* const> pages, Index stride, Index n_rows) {
    return {{}, pages, stride, n_rows};
  }
};

// q [T, H * qk] -> out [T, H * value]. Query t stands at first_position + t; the rows up to there
// must exist. lse [T, H]: log-sum-exp of the scaled scores, written when not empty. T is float or
// BF16 for the keys and values. Arithmetic is FP32; with BF16 rows an instruction set may round
// queries and probabilities to BF16 as well.
void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<float> k,
                       KeyRows<float> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse = {});
void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<BF16> k,
                       KeyRows<BF16> v, Index first_position, double scale, View2<float> out,
                       View2<float> lse = {});
// The absorbed form over a latent cache in FP8: n_kv_heads 1, qk = C + R, value = C. Each tile's
// codes are widened to code * scale in the processor's cache, exactly for FP32 arithmetic, rounded
// once where rows are multiplied as BF16.
void attention_forward(const AttentionShape& shape, View2<const float> q, const Fp8LatentRows& rows,
                       Index first_position, double scale, View2<float> out, View2<float> lse = {});

// Of one whole sequence (first_position 0, T = S, n_kv_heads = n_heads). dq, dk, dv are
// overwritten. lse is that of the forward pass over the same q, k and v.
//   delta[t] = sum dout[t] * out[t];  dp = dout v^T;  ds = p (dp - delta);
//   dq = scale ds k;  dk = scale ds^T q;  dv = p^T dout
void attention_backward(const AttentionShape& shape, View2<const float> q, View2<const float> k,
                        View2<const float> v, View2<const float> out, View2<const float> lse,
                        View2<const float> dout, double scale, View2<float> dq, View2<float> dk,
                        View2<float> dv);

// ShapeError unless `offsets` cut `rows` rows into sequences.
void check_sequences(const char* operation, std::span<const Index> offsets, Index rows);

// Both for whole sequences in one call (training), parallel over sequences, heads and tiles:
// sequence b has the rows [offsets[b], offsets[b + 1]) of every operand and sees only itself;
// offsets begin with 0, never fall, and end with the number of rows. The same bits as single calls.
// With operands in BF16 an instruction set may round probabilities, dout and ds to BF16 as well;
// sums are in FP32.
void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const float> q, View2<const float> k, View2<const float> v,
                             double scale, View2<float> out, View2<float> lse = {});
void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const BF16> q, View2<const BF16> k, View2<const BF16> v,
                             double scale, View2<float> out, View2<float> lse = {});
void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const float> q, View2<const float> k, View2<const float> v,
                              View2<const float> out, View2<const float> lse,
                              View2<const float> dout, double scale, View2<float> dq,
                              View2<float> dk, View2<float> dv);
void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const BF16> q, View2<const BF16> k, View2<const BF16> v,
                              View2<const float> out, View2<const float> lse,
                              View2<const float> dout, double scale, View2<float> dq,
                              View2<float> dk, View2<float> dv);

// In double: the definitions.
void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const double> q, View2<const double> k, View2<const double> v,
                             double scale, View2<double> out, View2<double> lse = {});
void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const double> q, View2<const double> k, View2<const double> v,
                              View2<const double> out, View2<const double> lse,
                              View2<const double> dout, double scale, View2<double> dq,
                              View2<double> dk, View2<double> dv);

namespace reference {
template <class T>
void attention_forward(const AttentionShape& shape, View2<const T> q, View2<const T> k,
                       View2<const T> v, Index first_position, T scale, View2<T> out, View2<T> lse);
template <class T>
void attention_backward(const AttentionShape& shape, View2<const T> q, View2<const T> k,
                        View2<const T> v, View2<const T> out, View2<const T> lse,
                        View2<const T> dout, T scale, View2<T> dq, View2<T> dk, View2<T> dv);
}  // namespace reference

}  // namespace minke

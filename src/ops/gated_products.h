// The products of a gated feed-forward network, with what lies between them: a tile of rows and
// outputs is taken further while it is in cache. The bits are those of the products (ops/linear.h)
// and units (ops/swiglu.h) one after another.
//
//   forward    gate = x W_gate^T,  up = x W_up^T,  hidden = silu(gate) * up
//   backward   dhidden = dy W_down,  [dgate, dup] = dSwiGLU(dhidden, gate, up)
//              dx = dgate W_gate + dup W_up
//
// Rows [offsets[e], offsets[e + 1]) of every matrix are those of w[e], as in linear_grouped;
// hidden, dgate and dup are FP32 or, for products that would round them, BF16. x, dy: X is View2 of
// FP32 or of BF16, or Fp8View.
#pragma once
#include <span>

#include "ops/linear.h"

namespace minke {

using PackedSpan = std::span<const PackedWeights* const>;

// gate, up [n, F], hidden [n, F]. `arithmetic` of x in FP32: as linear_grouped, or
// linear_fp8_grouped.
enum class InputArithmetic : std::uint8_t { OfForm, QuantizedToFp8 };
template <class X, class To>
void gated_forward(const X& x, std::span<const Index> offsets, PackedSpan w_gate, PackedSpan w_up,
                   View2<float> gate, View2<float> up, View2<To> hidden,
                   InputArithmetic arithmetic = InputArithmetic::OfForm);

// Weights are packed transposed. gate, up [n, F] of the forward; dhidden [n, F] is overwritten on
// the way; dgate may be gate, dup may be up. hidden is made again unless it is empty.
template <class X, class To>
void gated_backward(const X& dy, std::span<const Index> offsets, PackedSpan w_down,
                    View2<const float> gate, View2<const float> up, View2<float> dhidden,
                    View2<To> hidden, View2<To> dgate, View2<To> dup);

// dx [n, D] = (or +=) dgate W_gate + dup W_up, the weights packed transposed.
template <class X>
void gated_backward_input(const X& dgate, const X& dup, std::span<const Index> offsets,
                          PackedSpan w_gate, PackedSpan w_up, View2<float> dx,
                          Write write = Write::Overwrite);

}  // namespace minke

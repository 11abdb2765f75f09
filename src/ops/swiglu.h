// The gated unit of every feed-forward network.
//   y = silu(gate) * up,   silu(a) = a sigmoid(a)
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

// gate, up [T, F] -> y [T, F]; y may be gate or up.
void swiglu_forward(View2<const float> gate, View2<const float> up, View2<float> y);
// Rounded to BF16: the operand of a product that would round it.
void swiglu_forward(View2<const float> gate, View2<const float> up, View2<BF16> y);

// dy, gate, up [T, F] -> dgate, dup [T, F], overwritten; dgate may be gate, dup may be up.
//   dgate = dy up s (1 + gate (1 - s)),   dup = dy gate s,   s = sigmoid(gate)
void swiglu_backward_input(View2<const float> dy, View2<const float> gate, View2<const float> up,
                           View2<float> dgate, View2<float> dup);

// In double: the definitions.
void swiglu_forward(View2<const double> gate, View2<const double> up, View2<double> y);
void swiglu_backward_input(View2<const double> dy, View2<const double> gate, View2<const double> up,
                           View2<double> dgate, View2<double> dup);

namespace reference {
template <class T>
void swiglu_forward(View2<const T> gate, View2<const T> up, View2<T> y);
template <class T>
void swiglu_backward_input(View2<const T> dy, View2<const T> gate, View2<const T> up,
                           View2<T> dgate, View2<T> dup);
}  // namespace reference

}  // namespace minke

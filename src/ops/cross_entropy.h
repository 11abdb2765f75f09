// Next-token loss over logits.
//   nll[t] = log(sum_v exp(z[t, v])) - z[t, target[t]],   dz = weight (softmax(z) - onehot(target))
// Sums of exponentials are FP32 per row with the maximum taken out; sums over rows are double.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/view.h"

namespace minke {

inline constexpr std::int32_t kNoTarget = -1;  // this row does not count: nll 0, gradient 0

// logits [T, V] -> nll [T].
void cross_entropy_forward(View2<const float> logits, std::span<const std::int32_t> targets,
                           View1<float> nll);

// The same, and logits are overwritten with weight * d nll / d logits.
void cross_entropy_forward_backward(View2<float> logits, std::span<const std::int32_t> targets,
                                    double weight, View1<float> nll);
// In double: the definition.
void cross_entropy_forward_backward(View2<double> logits, std::span<const std::int32_t> targets,
                                    double weight, View1<double> nll);

namespace reference {
template <class T>
void cross_entropy_forward_backward(View2<T> logits, std::span<const std::int32_t> targets, T weight,
                                    View1<T> nll);
}  // namespace reference

}  // namespace minke

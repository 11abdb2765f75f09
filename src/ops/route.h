// The router of DeepSeekMoE (the report's equations 12-16) and its balance loss (17-20).
//   s = sigmoid(z)                          scores [T, E], z the gate's logits in FP32
//   groups: the topk_group groups with the highest sum of their two best s + b stay,
//           the experts of the others get minus infinity
//   choose: the K highest s + b;  ties go to the lower index, of groups and of experts
//   weights: s of the chosen (never s + b), divided by their sum when `normalize`, times `scale`
// The bias b and the choice carry no gradient.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/view.h"

namespace minke {

struct RouteShape {
  Index n_experts;    // E
  Index top_k;        // K
  Index n_group = 1, topk_group = 1;
  bool normalize = true;
  double scale = 1;
};

// logits [T, E], bias [E] -> scores [T, E], indices [T, K] by falling s + b, weights [T, K]. The sum
// that divides has 1e-20 added, so that scores which all underflow do not give 0/0.
void route_forward(const RouteShape& shape, View2<const float> logits, View1<const float> bias,
                   View2<float> scores, View2<std::int32_t> indices, View2<float> weights);

// dweights [T, K] -> dscores [T, E], overwritten (zero for the experts not chosen).
void route_backward_weights(const RouteShape& shape, View2<const float> dweights,
                            View2<const float> scores, View2<const std::int32_t> indices,
                            View2<float> dscores);
// dlogits = dscores s (1 - s); dlogits may be dscores.
void route_backward_scores(View2<const float> dscores, View2<const float> scores,
                           View2<float> dlogits);

// Sequence-wise balance loss of sequences of `length` positions each; scores [B * length, E].
//   alpha * mean over sequences of sum_i f_i P_i
//   f_i = E / (K T) #{t : i among the K highest s_t, without bias and groups}   (no gradient)
//   P_i = mean_t s_i / sum_j s_j
// Returns the loss; f, p [B, E] are written when not empty; d loss / d scores is added to dscores
// when that is not empty.
double balance_loss(const RouteShape& shape, View2<const float> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<float> dscores);

// In double: the definitions.
void route_forward(const RouteShape& shape, View2<const double> logits, View1<const double> bias,
                   View2<double> scores, View2<std::int32_t> indices, View2<double> weights);
void route_backward_weights(const RouteShape& shape, View2<const double> dweights,
                            View2<const double> scores, View2<const std::int32_t> indices,
                            View2<double> dscores);
void route_backward_scores(View2<const double> dscores, View2<const double> scores,
                           View2<double> dlogits);
double balance_loss(const RouteShape& shape, View2<const double> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<double> dscores);

// Selections per expert, as integers: load[i] += #{(t, k) : indices[t, k] = i}.
void count_loads(View2<const std::int32_t> indices, std::span<std::int64_t> load);

namespace reference {
template <class T>
void route_forward(const RouteShape& shape, View2<const T> logits, View1<const T> bias,
                   View2<T> scores, View2<std::int32_t> indices, View2<T> weights);
template <class T>
void route_backward_weights(const RouteShape& shape, View2<const T> dweights, View2<const T> scores,
                            View2<const std::int32_t> indices, View2<T> dscores);
template <class T>
void route_backward_scores(View2<const T> dscores, View2<const T> scores, View2<T> dlogits);
template <class T>
double balance_loss(const RouteShape& shape, View2<const T> scores, Index length, double alpha,
                    View2<double> f, View2<double> p, View2<T> dscores);
}  // namespace reference

}  // namespace minke

// Latent attention over a cache, in its two forms. With c_kv the cached latent of a position:
//   absorbed  q_lat = q_nope W_UK (per head, into latent space);
//             out_lat = softmax(scale ([q_lat; q_rope] . [c_kv; k_rope])) c_kv;   v = out_lat
//             W_UV^T
//   expanded  [k_nope; v] = c_kv W_UKV^T for every cached row, then as in training
// The two are equal in exact arithmetic because W_UK and W_UV are linear.
#pragma once
#include <span>

#include "model/cached_forward.h"

namespace minke {

// x [T, D]: normed inputs of all segments -> y [T, D]. The rows of the new tokens are appended to
// `layer` of each cache first, and attention reads them from there.
void mla_cached_forward(const Model& model, const MlaWeights& w, Index layer,
                        std::span<const Segment> segments, View2<const float> x, View2<float> y);

}  // namespace minke

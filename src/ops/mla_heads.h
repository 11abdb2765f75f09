// Between the up-projection of latent attention and its heads: pure copies and one sum.
//   kv [T, H (N+V)] holds per head N key elements without position, then V value elements;
//   k_rope [T, R] is one key part with position, shared by all heads.
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

struct MlaHeads {
  Index n_heads;  // H
  Index nope;     // N
  Index rope;     // R
  Index value;    // V
};

// Both for float and double; the first also rounds to BF16.
//
// k [T, H (N+R)]: per head the N elements, then k_rope.  v [T, H V].
void mla_split_heads(const MlaHeads& shape, View2<const float> kv, View2<const float> k_rope,
                     View2<float> k, View2<float> v);
void mla_split_heads(const MlaHeads& shape, View2<const float> kv, View2<const float> k_rope,
                     View2<BF16> k, View2<BF16> v);
void mla_split_heads(const MlaHeads& shape, View2<const double> kv, View2<const double> k_rope,
                     View2<double> k, View2<double> v);

// The transpose: dkv [T, H (N+V)], dk_rope [T, R] (summed over heads, rising), both overwritten;
// dkv also rounded to BF16.
void mla_split_heads_backward(const MlaHeads& shape, View2<const float> dk, View2<const float> dv,
                              View2<float> dkv, View2<float> dk_rope);
void mla_split_heads_backward(const MlaHeads& shape, View2<const float> dk, View2<const float> dv,
                              View2<BF16> dkv, View2<float> dk_rope);
void mla_split_heads_backward(const MlaHeads& shape, View2<const double> dk, View2<const double> dv,
                              View2<double> dkv, View2<double> dk_rope);

}  // namespace minke

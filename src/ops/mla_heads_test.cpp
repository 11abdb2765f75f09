#include "ops/mla_heads.h"

#include <gtest/gtest.h>

#include <vector>

namespace minke {
namespace {

TEST(MlaHeads, SplitPutsEveryElementInItsPlaceAndBackwardIsItsTranspose) {
  const MlaHeads s{.n_heads = 3, .nope = 2, .rope = 4, .value = 5};
  const Index T = 130;
  const Index nkv = s.n_heads * (s.nope + s.value), nk = s.n_heads * (s.nope + s.rope),
              nv = s.n_heads * s.value;
  std::vector<float> kv(T * nkv), rope(T * s.rope), k(T * nk), v(T * nv), dkv(T * nkv),
      drope(T * s.rope);
  for (std::size_t i = 0; i < kv.size(); ++i) kv[i] = static_cast<float>(i % 97) - 40;
  for (std::size_t i = 0; i < rope.size(); ++i) rope[i] = static_cast<float>(i % 89) + 100;
  const View2<float> KV(kv.data(), {T, nkv}), P(rope.data(), {T, s.rope}), K(k.data(), {T, nk}),
      V(v.data(), {T, nv}), dKV(dkv.data(), {T, nkv}), dP(drope.data(), {T, s.rope});
  mla_split_heads(s, KV, P, K, V);
  for (Index t : {Index{0}, Index{63}, Index{64}, T - 1})
    for (Index h = 0; h < s.n_heads; ++h) {
      for (Index i = 0; i < s.nope; ++i) EXPECT_EQ(K(t, h * 6 + i), KV(t, h * 7 + i));
      for (Index i = 0; i < s.rope; ++i) EXPECT_EQ(K(t, h * 6 + 2 + i), P(t, i));
      for (Index i = 0; i < s.value; ++i) EXPECT_EQ(V(t, h * 5 + i), KV(t, h * 7 + 2 + i));
    }
  std::vector<BF16> narrow_k(k.size()), narrow_v(v.size());
  mla_split_heads(s, KV, P, View2<BF16>(narrow_k.data(), {T, nk}),
                  View2<BF16>(narrow_v.data(), {T, nv}));
  for (std::size_t i = 0; i < k.size(); ++i) EXPECT_EQ(narrow_k[i].bits, BF16(k[i]).bits);
  for (std::size_t i = 0; i < v.size(); ++i) EXPECT_EQ(narrow_v[i].bits, BF16(v[i]).bits);
  // <split(x), y> = <x, split_backward(y)> with y = split(x): both sides in integers, exact.
  mla_split_heads_backward(s, K, V, dKV, dP);
  double left = 0, right = 0;
  for (float x : k) left += double(x) * x;
  for (float x : v) left += double(x) * x;
  for (std::size_t i = 0; i < kv.size(); ++i) right += double(kv[i]) * dkv[i];
  for (std::size_t i = 0; i < rope.size(); ++i) right += double(rope[i]) * drope[i];
  EXPECT_EQ(left, right);
  std::vector<BF16> narrow_dkv(dkv.size());
  std::vector<float> same_drope(drope.size());
  mla_split_heads_backward(s, K, V, View2<BF16>(narrow_dkv.data(), {T, nkv}),
                           View2<float>(same_drope.data(), {T, s.rope}));
  for (std::size_t i = 0; i < dkv.size(); ++i) EXPECT_EQ(narrow_dkv[i].bits, BF16(dkv[i]).bits);
  EXPECT_EQ(same_drope, drope);
}

}  // namespace
}  // namespace minke

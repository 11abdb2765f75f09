#include "ops/mla_heads.h"

#include <algorithm>

#include "base/threads.h"

namespace minke {
namespace {

constexpr Index kRows = 64;  // rows a piece of work

}  // namespace

void mla_split_heads(const MlaHeads& s, View2<const float> kv, View2<const float> k_rope,
                     View2<float> k, View2<float> v) {
  parallel_ranges(kv.extent(0), kRows, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < s.n_heads; ++h) {
        const float* from = &kv(t, h * (s.nope + s.value));
        float* key = &k(t, h * (s.nope + s.rope));
        std::copy_n(from, s.nope, key);
        std::copy_n(&k_rope(t, 0), s.rope, key + s.nope);
        std::copy_n(from + s.nope, s.value, &v(t, h * s.value));
      }
  });
}

void mla_split_heads_backward(const MlaHeads& s, View2<const float> dk, View2<const float> dv,
                              View2<float> dkv, View2<float> dk_rope) {
  parallel_ranges(dk.extent(0), kRows, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      float* shared = &dk_rope(t, 0);
      std::fill_n(shared, s.rope, 0.0f);
      for (Index h = 0; h < s.n_heads; ++h) {
        const float* dkey = &dk(t, h * (s.nope + s.rope));
        float* to = &dkv(t, h * (s.nope + s.value));
        std::copy_n(dkey, s.nope, to);
        std::copy_n(&dv(t, h * s.value), s.value, to + s.nope);
        for (Index r = 0; r < s.rope; ++r) shared[r] += dkey[s.nope + r];
      }
    }
  });
}

}  // namespace minke

#include "ops/mla_heads.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/elementwise.h"

namespace minke {
namespace {

constexpr Index kRows = 64;  // rows a piece of work

template <class Real>
void move(const Real* from, Index n, Real* to) {
  std::copy_n(from, n, to);
}
void move(const float* from, Index n, BF16* to) {
  elementwise().narrow(from, to, n);
}

template <class Real, class To>
void split(const MlaHeads& s, View2<const Real> kv, View2<const Real> k_rope, View2<To> k,
           View2<To> v) {
  parallel_ranges(kv.extent(0), kRows, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < s.n_heads; ++h) {
        const Real* from = &kv(t, h * (s.nope + s.value));
        To* key = &k(t, h * (s.nope + s.rope));
        move(from, s.nope, key);
        move(&k_rope(t, 0), s.rope, key + s.nope);
        move(from + s.nope, s.value, &v(t, h * s.value));
      }
  });
}

template <class Real, class To>
void split_backward(const MlaHeads& s, View2<const Real> dk, View2<const Real> dv, View2<To> dkv,
                    View2<Real> dk_rope) {
  parallel_ranges(dk.extent(0), kRows, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      Real* shared = &dk_rope(t, 0);
      std::fill_n(shared, s.rope, Real(0));
      for (Index h = 0; h < s.n_heads; ++h) {
        const Real* dkey = &dk(t, h * (s.nope + s.rope));
        To* to = &dkv(t, h * (s.nope + s.value));
        move(dkey, s.nope, to);
        move(&dv(t, h * s.value), s.value, to + s.nope);
        for (Index r = 0; r < s.rope; ++r) shared[r] += dkey[s.nope + r];
      }
    }
  });
}

}  // namespace

void mla_split_heads(const MlaHeads& shape, View2<const float> kv, View2<const float> k_rope,
                     View2<float> k, View2<float> v) {
  split(shape, kv, k_rope, k, v);
}
void mla_split_heads(const MlaHeads& shape, View2<const float> kv, View2<const float> k_rope,
                     View2<BF16> k, View2<BF16> v) {
  split(shape, kv, k_rope, k, v);
}
void mla_split_heads(const MlaHeads& shape, View2<const double> kv, View2<const double> k_rope,
                     View2<double> k, View2<double> v) {
  split(shape, kv, k_rope, k, v);
}

void mla_split_heads_backward(const MlaHeads& shape, View2<const float> dk, View2<const float> dv,
                              View2<float> dkv, View2<float> dk_rope) {
  split_backward(shape, dk, dv, dkv, dk_rope);
}
void mla_split_heads_backward(const MlaHeads& shape, View2<const float> dk, View2<const float> dv,
                              View2<BF16> dkv, View2<float> dk_rope) {
  split_backward(shape, dk, dv, dkv, dk_rope);
}
void mla_split_heads_backward(const MlaHeads& shape, View2<const double> dk, View2<const double> dv,
                              View2<double> dkv, View2<double> dk_rope) {
  split_backward(shape, dk, dv, dkv, dk_rope);
}

}  // namespace minke

#include "ops/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/check_extents.h"

namespace minke {

namespace reference {

template <class T>
void attention_forward(const AttentionShape& shape, View2<const T> q, View2<const T> k,
                       View2<const T> v, Index first_position, T scale, View2<T> out,
                       View2<T> lse) {
  std::vector<T> p;
  for (Index t = 0; t < q.extent(0); ++t)
    for (Index h = 0; h < shape.n_heads; ++h) {
      const Index n = first_position + t + 1, kv = shape.n_kv_heads == 1 ? 0 : h;
      p.assign(static_cast<std::size_t>(n), T(0));
      for (Index s = 0; s < n; ++s) {
        T dot = 0;
        for (Index d = 0; d < shape.qk; ++d)
          dot += q(t, h * shape.qk + d) * k(s, kv * shape.qk + d);
        p[static_cast<std::size_t>(s)] = scale * dot;
      }
      const T largest = *std::max_element(p.begin(), p.end());
      T sum = 0;
      for (T& x : p) sum += x = std::exp(x - largest);
      if (!lse.empty()) lse(t, h) = largest + std::log(sum);
      for (Index c = 0; c < shape.value; ++c) {
        T o = 0;
        for (Index s = 0; s < n; ++s)
          o += p[static_cast<std::size_t>(s)] * v(s, kv * shape.value + c);
        out(t, h * shape.value + c) = o / sum;
      }
    }
}

template <class T>
void attention_backward(const AttentionShape& shape, View2<const T> q, View2<const T> k,
                        View2<const T> v, View2<const T> out, View2<const T> lse,
                        View2<const T> dout, T scale, View2<T> dq, View2<T> dk, View2<T> dv) {
  const Index S = q.extent(0);
  for (Index h = 0; h < shape.n_heads; ++h) {
    const View2<const T> qh = q.columns(h * shape.qk, shape.qk),
                         kh = k.columns(h * shape.qk, shape.qk);
    const View2<const T> vh = v.columns(h * shape.value, shape.value);
    const View2<const T> oh = out.columns(h * shape.value, shape.value);
    const View2<const T> doh = dout.columns(h * shape.value, shape.value);
    const View2<T> dqh = dq.columns(h * shape.qk, shape.qk),
                   dkh = dk.columns(h * shape.qk, shape.qk);
    const View2<T> dvh = dv.columns(h * shape.value, shape.value);
    for (Index t = 0; t < S; ++t) {
      for (Index d = 0; d < shape.qk; ++d) dqh(t, d) = dkh(t, d) = 0;
      for (Index c = 0; c < shape.value; ++c) dvh(t, c) = 0;
    }
    for (Index t = 0; t < S; ++t) {
      T delta = 0;
      for (Index c = 0; c < shape.value; ++c) delta += doh(t, c) * oh(t, c);
      for (Index s = 0; s <= t; ++s) {
        T dot = 0, dp = 0;
        for (Index d = 0; d < shape.qk; ++d) dot += qh(t, d) * kh(s, d);
        for (Index c = 0; c < shape.value; ++c) dp += doh(t, c) * vh(s, c);
        const T p = std::exp(scale * dot - lse(t, h)), ds = p * (dp - delta);
        for (Index c = 0; c < shape.value; ++c) dvh(s, c) += p * doh(t, c);
        for (Index d = 0; d < shape.qk; ++d) {
          dqh(t, d) += scale * ds * kh(s, d);
          dkh(s, d) += scale * ds * qh(t, d);
        }
      }
    }
  }
}

#define MINKE_INSTANTIATE(T)                                                                       \
  template void attention_forward(const AttentionShape&, View2<const T>, View2<const T>,           \
                                  View2<const T>, Index, T, View2<T>, View2<T>);                   \
  template void attention_backward(const AttentionShape&, View2<const T>, View2<const T>,          \
                                   View2<const T>, View2<const T>, View2<const T>, View2<const T>, \
                                   T, View2<T>, View2<T>, View2<T>);
MINKE_INSTANTIATE(float)
MINKE_INSTANTIATE(double)
#undef MINKE_INSTANTIATE

}  // namespace reference

namespace {

template <class E>
Tensor widened(const KeyRows<E>& rows, Index width) {
  Tensor all = Tensor::uninitialized({rows.n_rows, width});
  for (Index s = 0; s < rows.n_rows; ++s) {
    const E* from = rows.pages.empty() ? rows.block.data() + s * rows.block.stride(0)
                                       : rows.pages[static_cast<std::size_t>(s / kKeyTile)] +
                                             s % kKeyTile * rows.page_stride;
    for (Index d = 0; d < width; ++d) all.v2()(s, d) = from[d];
  }
  return all;
}

template <class E>
void forward(const AttentionShape& shape, View2<const float> q, const KeyRows<E>& k,
             const KeyRows<E>& v, Index first_position, float scale, View2<float> out,
             View2<float> lse) {
  const Tensor keys = widened(k, shape.n_kv_heads * shape.qk);
  const Tensor values = widened(v, shape.n_kv_heads * shape.value);
  const Index T = q.extent(0);
  parallel_for(T, [&](Index t) {
    reference::attention_forward<float>(shape, q.rows(t, 1), keys.v2(), values.v2(),
                                        first_position + t, scale, out.rows(t, 1),
                                        lse.empty() ? lse : lse.rows(t, 1));
  });
}

}  // namespace

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<float> k,
                       KeyRows<float> v, Index first_position, float scale, View2<float> out,
                       View2<float> lse) {
  forward(shape, q, k, v, first_position, scale, out, lse);
}

void attention_forward(const AttentionShape& shape, View2<const float> q, KeyRows<BF16> k,
                       KeyRows<BF16> v, Index first_position, float scale, View2<float> out,
                       View2<float> lse) {
  forward(shape, q, k, v, first_position, scale, out, lse);
}

void attention_backward(const AttentionShape& shape, View2<const float> q, View2<const float> k,
                        View2<const float> v, View2<const float> out, View2<const float> lse,
                        View2<const float> dout, float scale, View2<float> dq, View2<float> dk,
                        View2<float> dv) {
  reference::attention_backward<float>(shape, q, k, v, out, lse, dout, scale, dq, dk, dv);
}

void attention_forward_batch(const AttentionShape& shape, Index n_sequences, View2<const float> q,
                             View2<const float> k, View2<const float> v, float scale,
                             View2<float> out, View2<float> lse) {
  const Index S = q.extent(0) / n_sequences;
  parallel_for(n_sequences, [&](Index b) {
    attention_forward(shape, q.rows(b * S, S), KeyRows<float>::of(k.rows(b * S, S)),
                      KeyRows<float>::of(v.rows(b * S, S)), 0, scale, out.rows(b * S, S),
                      lse.empty() ? lse : lse.rows(b * S, S));
  });
}

void attention_backward_batch(const AttentionShape& shape, Index n_sequences, View2<const float> q,
                              View2<const float> k, View2<const float> v, View2<const float> out,
                              View2<const float> lse, View2<const float> dout, float scale,
                              View2<float> dq, View2<float> dk, View2<float> dv) {
  const Index S = q.extent(0) / n_sequences;
  parallel_for(n_sequences, [&](Index b) {
    attention_backward(shape, q.rows(b * S, S), k.rows(b * S, S), v.rows(b * S, S),
                       out.rows(b * S, S), lse.rows(b * S, S), dout.rows(b * S, S), scale,
                       dq.rows(b * S, S), dk.rows(b * S, S), dv.rows(b * S, S));
  });
}

}  // namespace minke

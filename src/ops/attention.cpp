#include "ops/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/threads.h"

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

void check_sequences(const char* operation, std::span<const Index> offsets, Index rows) {
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != rows ||
      !std::is_sorted(offsets.begin(), offsets.end()))
    throw ShapeError(
        fmt::format("{}: the {} offsets do not cut {} rows into sequences; expected 0 <= ... <= {}",
                    operation, offsets.size(), rows, rows));
}

void attention_forward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                             View2<const double> q, View2<const double> k, View2<const double> v,
                             double scale, View2<double> out, View2<double> lse) {
  check_sequences("attention_forward_batch", offsets, q.extent(0));
  parallel_for(std::ssize(offsets) - 1, [&](Index b) {
    const auto i = static_cast<std::size_t>(b);
    const auto of = [&](auto x) {
      return x.empty() ? x : x.rows(offsets[i], offsets[i + 1] - offsets[i]);
    };
    reference::attention_forward(shape, of(q), of(k), of(v), 0, scale, of(out), of(lse));
  });
}

void attention_backward_batch(const AttentionShape& shape, std::span<const Index> offsets,
                              View2<const double> q, View2<const double> k, View2<const double> v,
                              View2<const double> out, View2<const double> lse,
                              View2<const double> dout, double scale, View2<double> dq,
                              View2<double> dk, View2<double> dv) {
  check_sequences("attention_backward_batch", offsets, q.extent(0));
  parallel_for(std::ssize(offsets) - 1, [&](Index b) {
    const auto i = static_cast<std::size_t>(b);
    const auto of = [&](auto x) { return x.rows(offsets[i], offsets[i + 1] - offsets[i]); };
    reference::attention_backward(shape, of(q), of(k), of(v), of(out), of(lse), of(dout), scale,
                                  of(dq), of(dk), of(dv));
  });
}

}  // namespace minke

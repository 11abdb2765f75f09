// Numbers laid out as lanes (Layout in ops/gemm.h) in squares of kWidth x kWidth lanes. Included
// like ops/gemm_body.h; needs Vec, kWidth, load_some, store_all, store_some and
//   transpose(v)              kWidth vectors in place
//   rounded(v)                to BF16, held as FP32
//   pairs_along(a, b)         of rounded k, k + 1, ... in a and then b
//   pairs_across(a, b)        of rounded k in a and k + 1 in b
// Bound by memory: a number costs about half a cycle and moves 4 bytes in, 2 or 4 out.
//
// No `#pragma once`: each form has its own copy.

// The lanes l to l + kWidth of the numbers from k on of one row.
template <Lanes kLanes>
MINKE_GEMM_INLINE Vec lanes_along(const float* row, Index n) {
  const auto some = [&](Index at) {
    return load_some(row + (at < n ? at : 0), within(n - at, kWidth));
  };
  if constexpr (kLanes == Lanes::F32) return some(0);
  if constexpr (kLanes == Lanes::Rounded) return rounded(some(0));
  if constexpr (kLanes == Lanes::Pairs) return pairs_along(rounded(some(0)), rounded(some(kWidth)));
}

// One lane of `width` columns: rows `left` of them are there.
template <Lanes kLanes>
MINKE_GEMM_INLINE Vec lanes_across(const float* from, Index stride, Index width, Index left) {
  const Vec a = load_some(from, left > 0 ? width : 0);
  if constexpr (kLanes == Lanes::F32) return a;
  if constexpr (kLanes == Lanes::Rounded) return rounded(a);
  if constexpr (kLanes == Lanes::Pairs)
    return pairs_across(rounded(a),
                        rounded(load_some(left > 1 ? from + stride : from, left > 1 ? width : 0)));
}

template <Lanes kLanes, bool kTransposed, bool kToPanel>
void lay_out(const Layout& f) {
  constexpr Index kPerLane = kLanes == Lanes::Pairs ? 2 : 1;
  const Index outer = kToPanel ? kPanel : f.outer, lanes = f.padded_k / kPerLane;
  float* to = static_cast<float*>(f.to);
  for (Index i = 0; i < outer; i += kWidth)
    for (Index l = 0; l < lanes; l += kWidth) {
      Vec v[kWidth];
      const Index rows = within(f.outer - i, kWidth);
      const Index k = l * kPerLane;
      if constexpr (kTransposed) {
        const float* from = f.from + i;
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j) {
          const Index at = k + j * kPerLane;
          v[j] = lanes_across<kLanes>(at < f.k ? from + at * f.stride : f.from, f.stride, rows,
                                      f.k - at);
        }
      } else {
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j)
          v[j] = lanes_along<kLanes>(j < rows && k < f.k ? f.from + (i + j) * f.stride + k : f.from,
                                     j < rows ? f.k - k : 0);
      }
      if constexpr (kTransposed != kToPanel) transpose(v);
      if constexpr (kToPanel) {
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j) store_all(to + (l + j) * kPanel + i, v[j]);
      } else {
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j)
          if (j < rows) store_all(to + (i + j) * f.to_stride + l, v[j]);
      }
    }
}

constexpr Kernels with_layouts(Kernels k) {
  k.rows[0] = lay_out<Lanes::F32, false, false>;
  k.rows[1] = lay_out<Lanes::Rounded, false, false>;
  k.rows[2] = lay_out<Lanes::Pairs, false, false>;
  k.rows_transposed[0] = lay_out<Lanes::F32, true, false>;
  k.rows_transposed[1] = lay_out<Lanes::Rounded, true, false>;
  k.rows_transposed[2] = lay_out<Lanes::Pairs, true, false>;
  k.panel[0] = lay_out<Lanes::F32, false, true>;
  k.panel[2] = lay_out<Lanes::Pairs, false, true>;
  k.panel_transposed[0] = lay_out<Lanes::F32, true, true>;
  k.panel_transposed[2] = lay_out<Lanes::Pairs, true, true>;
  return k;
}

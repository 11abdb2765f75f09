// Numbers laid out as lanes (Layout in ops/gemm.h) in squares of kWidth x kWidth lanes. Included
// like ops/gemm_body.h; needs Vec, kWidth, load_some (of FP32 and BF16), store_all,
// store_past_cache and
//   transpose(v)              kWidth vectors in place
//   rounded(v)                to BF16, held as FP32
//   pairs_along(a, b)         of rounded k, k + 1, ... in a and then b
//   pairs_across(a, b)        of rounded k in a and k + 1 in b
//   load_pairs(p, n)          n BF16 numbers at p, n <= 2 kWidth, and zeros
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

MINKE_GEMM_INLINE Vec load_rounded(const float* p, Index n) {
  return rounded(load_some(p, n));
}
MINKE_GEMM_INLINE Vec load_rounded(const BF16* p, Index n) {
  return load_some(p, n);
}

// One lane of `width` columns: rows `left` of them are there. From is float or BF16.
template <Lanes kLanes, class From>
MINKE_GEMM_INLINE Vec lanes_across(const From* from, Index stride, Index width, Index left) {
  const Index n = left > 0 ? width : 0;
  if constexpr (kLanes == Lanes::F32) return load_some(from, n);
  if constexpr (kLanes == Lanes::Rounded) return load_rounded(from, n);
  if constexpr (kLanes == Lanes::Pairs)
    return pairs_across(load_rounded(from, n),
                        load_rounded(left > 1 ? from + stride : from, left > 1 ? width : 0));
}

template <Lanes kLanes>
MINKE_GEMM_INLINE Vec lanes_along(const BF16* row, Index n) {
  if constexpr (kLanes == Lanes::Pairs) return load_pairs(row, within(n, 2 * kWidth));
  return load_some(row, within(n, kWidth));
}

// kWidth lanes' worth, to the second level. Past the end is as good as any other address.
template <Index kPerLane, class From>
MINKE_GEMM_INLINE void prefetch_numbers(const From* p) {
  constexpr Index kOfLine = 64 / sizeof(From);
  for (Index i = 0; i < kWidth * kPerLane; i += kOfLine) __builtin_prefetch(p + i, 0, 2);
}

// Rows to rows: nothing changes places, memory is read from front to back.
template <Lanes kLanes, class From>
void lay_out_rows(const Layout& f, const From* numbers) {
  constexpr Index kPerLane = kLanes == Lanes::Pairs ? 2 : 1;
  for (Index i = 0; i < f.outer; ++i) {
    const From* from = numbers + i * f.stride;
    float* to = static_cast<float*>(f.to) + i * f.to_stride;
    for (Index k = 0; k < f.padded_k; k += kWidth * kPerLane) {
      prefetch_numbers<kPerLane>(from + f.stride + k);
      store_all(to + k / kPerLane, lanes_along<kLanes>(k < f.k ? from + k : from, f.k - k));
    }
  }
}
template <Lanes kLanes>
void lay_out_rows(const Layout& f) {
  if (f.narrow)
    lay_out_rows<kLanes>(f, f.narrow);
  else
    lay_out_rows<kLanes>(f, f.from);
}

constexpr Index kStretch = 256;  // lanes of a panel's rows that wait in cache

// Rows to a panel: a stretch of each row in turn, as memory likes it, then squares of them.
template <Lanes kLanes>
void lay_out_panel(const Layout& f) {
  constexpr Index kPerLane = kLanes == Lanes::Pairs ? 2 : 1;
  constexpr Index kRowLanes = kStretch + kWidth;
  alignas(64) float rows[kPanel * kRowLanes];
  float* to = static_cast<float*>(f.to);
  for (Index k = 0; k < f.padded_k; k += kStretch * kPerLane) {
    const Index stretch = least(kStretch * kPerLane, f.padded_k - k);
    for (Index i = 0; i < kPanel; ++i)
      for (Index at = 0; at < stretch; at += kWidth * kPerLane) {
        const bool there = i < f.outer && k + at < f.k;
        const float* from = f.from + (there ? i * f.stride + k + at : 0);
        prefetch_numbers<kPerLane>(from + f.stride);  // the next row: a stretch ahead
        store_all(rows + i * kRowLanes + at / kPerLane,
                  lanes_along<kLanes>(from, there ? f.k - k - at : 0));
      }
    for (Index l = 0; l < stretch / kPerLane; l += kWidth)
      for (Index i = 0; i < kPanel; i += kWidth) {
        Vec v[kWidth];
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j) v[j] = load_all(rows + (i + j) * kRowLanes + l);
        transpose(v);
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j)
          store_past_cache(to + (k / kPerLane + l + j) * kPanel + i, v[j]);
      }
  }
}

template <Lanes kLanes, bool kToPanel, class From>
void lay_out_transposed(const Layout& f, const From* numbers) {
  constexpr Index kPerLane = kLanes == Lanes::Pairs ? 2 : 1;
  const Index outer = kToPanel ? kPanel : f.outer, lanes = f.padded_k / kPerLane;
  float* to = static_cast<float*>(f.to);
  for (Index i = 0; i < outer; i += kWidth)
    for (Index l = 0; l < lanes; l += kWidth) {
      Vec v[kWidth];
      const Index columns = within(f.outer - i, kWidth);
      const From* from = numbers + (columns > 0 ? i : 0);
#pragma GCC unroll 16
      for (Index j = 0; j < kWidth; ++j) {
        const Index k = (l + j) * kPerLane;
        for (Index row = k; row < k + kPerLane; ++row)  // the rows of the next square
          __builtin_prefetch(from + (row + kWidth * kPerLane) * f.stride, 0, 2);
        v[j] =
            lanes_across<kLanes>(k < f.k ? from + k * f.stride : from, f.stride, columns, f.k - k);
      }
      if constexpr (kToPanel) {
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j) {
          if (f.past_cache)
            store_past_cache(to + (l + j) * kPanel + i, v[j]);
          else
            store_all(to + (l + j) * kPanel + i, v[j]);
        }
      } else {
        transpose(v);
#pragma GCC unroll 16
        for (Index j = 0; j < kWidth; ++j)
          if (j < columns) store_all(to + (i + j) * f.to_stride + l, v[j]);
      }
    }
}

// Transposed rows to rows or to a panel.
template <Lanes kLanes, bool kToPanel>
void lay_out_transposed(const Layout& f) {
  if (f.narrow)
    lay_out_transposed<kLanes, kToPanel>(f, f.narrow);
  else
    lay_out_transposed<kLanes, kToPanel>(f, f.from);
}

constexpr Kernels with_layouts(Kernels k) {
  k.rows[0] = lay_out_rows<Lanes::F32>;
  k.rows[1] = lay_out_rows<Lanes::Rounded>;
  k.rows[2] = lay_out_rows<Lanes::Pairs>;
  k.rows_transposed[0] = lay_out_transposed<Lanes::F32, false>;
  k.rows_transposed[1] = lay_out_transposed<Lanes::Rounded, false>;
  k.rows_transposed[2] = lay_out_transposed<Lanes::Pairs, false>;
  k.panel[0] = lay_out_panel<Lanes::F32>;
  k.panel[2] = lay_out_panel<Lanes::Pairs>;
  k.panel_transposed[0] = lay_out_transposed<Lanes::F32, true>;
  k.panel_transposed[2] = lay_out_transposed<Lanes::Pairs, true>;
  return k;
}

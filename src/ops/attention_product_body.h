// Small products (SmallProduct in ops/attention_kernels.h) over vectors of lanes_body.h. Included
// after it, inside a target region and an anonymous namespace that has defined multiply_add(a, b,
// sum).
//
// A product holds a block of kRows x kColumns vectors of c in registers and walks over k: per step
// kColumns loads of b and kRows broadcasts of a for kRows * kColumns multiply-adds, so that it is
// bound by the multiply-add units as long as the operands of a tile stay in the first two caches.
//
// No `#pragma once`: each form has its own copy.

// Rows and vectors of the largest block: 16 running sums of 32 registers, or 8 to 12 of 16.
constexpr int kRows = MINKE_LANES == 16 ? 8 : MINKE_LANES == 8 ? 6 : 4;
constexpr int kColumns = MINKE_LANES == 1 ? 1 : 2;
constexpr int kRowsOfOne = MINKE_LANES == 16 ? 2 * kRows : kRows;  // where one vector is all

template <int R, int C, bool RowsDense, bool Fetch>
MINKE_INLINE void multiply_block(const SmallProduct& p, const float* a, const float* b, float* c,
                                 const char*& fetch) {
  Vec sums[R][C];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sums[i][j] = p.add ? load(c + i * p.c_stride + j * kLanes) : all(0);
  const Index a_row = RowsDense ? 1 : p.a_row, a_k = RowsDense ? p.a_k : 1;
  const char* line = fetch;
  for (Index k = 0; k < p.k; ++k) {
    if (Fetch && line < p.fetch_end) {
      __builtin_prefetch(line, 0, 2);
      line += 64;
    }
    Vec row[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) row[j] = load(b + k * p.b_stride + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec x = all(a[i * a_row + k * a_k]);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sums[i][j] = multiply_add(x, row[j], sums[i][j]);
    }
  }
  fetch = line;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) store(c + i * p.c_stride + j * kLanes, sums[i][j]);
}

// All rows of one stretch of C vectors, in blocks of R rows, what is left in blocks of half of R.
template <int R, int C, bool RowsDense, bool Fetch>
void multiply_rows(const SmallProduct& p, Index row, Index column, const char*& fetch) {
  for (; row + R <= p.rows; row += R)
    multiply_block<R, C, RowsDense, Fetch>(p, p.a + row * (RowsDense ? 1 : p.a_row), p.b + column,
                                           p.c + row * p.c_stride + column, fetch);
  if constexpr (R > 1)
    if (row < p.rows) multiply_rows<R / 2, C, RowsDense, Fetch>(p, row, column, fetch);
}

template <bool RowsDense, bool Fetch>
MINKE_INLINE void multiply_all(const SmallProduct& p) {
  const char* fetch = p.fetch;
  Index column = 0;
  for (; column + kColumns * kLanes <= p.columns; column += kColumns * kLanes)
    multiply_rows<kRows, kColumns, RowsDense, Fetch>(p, 0, column, fetch);
  if constexpr (kColumns > 1)
    for (; column < p.columns; column += kLanes)
      multiply_rows<kRowsOfOne, 1, RowsDense, Fetch>(p, 0, column, fetch);
}

void multiply(const SmallProduct& p) {
  if (p.a_row == 1)
    multiply_all<true, false>(p);
  else if (p.fetch == nullptr)
    multiply_all<false, false>(p);
  else
    multiply_all<false, true>(p);
}

// Register tiles of a block (ops/gemm.h), for each vector form. Included inside a target region and
// an anonymous namespace that has defined
//   Vec, kWidth               a vector of kWidth FP32 numbers
//   load_some, store_some     of the first n numbers at p; the rest reads as zero
//   broadcast                 one lane of x to all
//   panels_at_once(rows)      how many panels a tile of that many rows covers
//   kFullRows                 rows of a full tile
//   kTallRows                 up to so many rows are one tile, narrower where there are more than
//                             kFullRows: weights then come from memory once and need no second look
// and weights W: kUnits lanes of x and kBytes of a panel per step, begin(scale), load(p, v) with
// v[unit][vector of the panel], multiply(a, v, sum), panels(rows) in place of panels_at_once,
// kRefuses: whether it may turn out in the end (refuses()) that they held what only the weights
// Patient can widen, and kTogether, panels that are loaded at a time, where widening needs
// registers.
//
// A tile holds its sums in registers over the whole stretch of K, reads each vector of weights once
// for all its rows and each lane of x once for all its panels. The first tile of rows meets the
// panels in memory and prefetches them; the others find them in cache.
//
// No `#pragma once`: each form has its own copy.

MINKE_GEMM_INLINE Index least(Index a, Index b) {
  return a < b ? a : b;
}
MINKE_GEMM_INLINE Index within(Index n, Index most) {
  return n < 0 ? 0 : n < most ? n : most;
}

constexpr int kVectors = static_cast<int>(kPanel / kWidth);  // of a panel

// Into the second level, which takes more misses at a time than the first: with E4M3 and one row,
// 77 to 81 % of the read bandwidth on Zen 4 against 64 to 71.
constexpr Index kFetchAhead = 2048;

template <class W>
constexpr Index kBytesOfK = W::kBytes * W::kLanesPerK2 / (2 * W::kUnits);
template <class W>
constexpr Index kStretchOf = W::kScaled ? kScale : kFetchAhead / kBytesOfK<W>;

// What is read after the block: so many lines are fetched in each stretch of a tile.
struct Ahead {
  NextLines next;
  Index lines;
};

template <class W, int kRows, int kPanels, bool kFetch>
void multiply_tile(const Block& b, const char* x, const char* w, Index columns, float* y,
                   Ahead& later) {
  const Index x_bytes = b.x_stride * 4;
  const char* panel[kPanels];
  Vec sums[kRows][kPanels * kVectors];
  // Widening takes registers: then few panels at a time share the lanes of x.
  constexpr int kTogether = [] {
    if constexpr (W::kScaled) return W::kTogether;
    return kPanels;
  }();
  const auto width = [&](int vector) { return within(columns - vector * kWidth, kWidth); };
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p)  // panels beyond the last one: the last one, not stored
    panel[p] = w + (p * kPanel < columns ? p : (columns - 1) / kPanel) * b.panel_bytes;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kPanels * kVectors; ++v) {
      sums[r][v] = load_some(y + r * b.y_stride + v * kWidth, b.add ? width(v) : 0);
      __builtin_prefetch(y + (kRows + r) * b.y_stride + v * kWidth, 1);  // of the next tile
    }

  W weights;
  constexpr Index kStretch = kStretchOf<W>;
  for (Index first = 0; first < b.k; first += kStretch) {
    const Index stretch = least(kStretch, b.k - first);
    // Towards the end of these panels those that are read next are fetched.
    const Index ahead = first + kStretch < b.k
                            ? kFetchAhead
                            : kFetchAhead + kPanels * b.panel_bytes - b.k * kBytesOfK<W>;
    if (W::kScaled)
      weights.begin(b.scales[first / kScale]);
    else
      later.next.fetch(later.lines);
    const Index steps = stretch * W::kLanesPerK2 / 2 / W::kUnits;
    for (Index s = 0; s < steps; ++s) {
      if (kFetch)
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) __builtin_prefetch(panel[p] + ahead, 0, 2);
#pragma GCC unroll 8
      for (int q = 0; q < kPanels; q += kTogether) {
        Vec v[kTogether][W::kUnits][kVectors];
#pragma GCC unroll 8
        for (int p = 0; p < kTogether; ++p) weights.load(panel[q + p], v[p]);
        __asm__("" : "+r"(x));  // lanes are loaded again for the next panels, not kept and spilled
#pragma GCC unroll 4
        for (int u = 0; u < W::kUnits; ++u)
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const Vec a = broadcast(x + r * x_bytes + u * 4);
#pragma GCC unroll 8
            for (int p = 0; p < kTogether; ++p)
#pragma GCC unroll 2
              for (int i = 0; i < kVectors; ++i) {
                Vec& sum = sums[r][(q + p) * kVectors + i];
                sum = W::multiply(a, v[p][u][i], sum);
              }
          }
      }
      x += W::kUnits * 4;
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) panel[p] += W::kBytes;
    }
  }
  if constexpr (W::kRefuses)
    if (weights.refuses())
      return multiply_tile<typename W::Patient, kRows, kPanels, kFetch>(
          b, x - b.k * W::kLanesPerK2 * 2, w, columns, y, later);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kPanels * kVectors; ++v)
      store_some(y + r * b.y_stride + v * kWidth, sums[r][v], width(v));
}

// kRows rows of all panels of the block.
template <class W, int kRows, bool kFetch>
void multiply_rows(const Block& b, Index row, Ahead& later) {
  constexpr int kPanels = W::panels(kRows), kFewer = kPanels > 4 ? 4 : kPanels;
  for (Index c = 0; c < b.columns; c += kPanels * kPanel) {
    const char* x = static_cast<const char*>(b.x) + row * b.x_stride * 4;
    const char* w = static_cast<const char*>(b.w) + c / kPanel * b.panel_bytes;
    const Index columns = least(kPanels * kPanel, b.columns - c);
    float* y = b.y + row * b.y_stride + c;
    if (columns > kFewer * kPanel)
      multiply_tile<W, kRows, kPanels, kFetch>(b, x, w, columns, y, later);
    else
      multiply_tile<W, kRows, kFewer, kFetch>(b, x, w, columns, y, later);
  }
}

template <class W, int kMost, bool kFetch>
void multiply_some_rows(const Block& b, Index row, Index n, Ahead& later) {
  if (n == kMost) return multiply_rows<W, kMost, kFetch>(b, row, later);
  if constexpr (kMost > 1) multiply_some_rows<W, kMost - 1, kFetch>(b, row, n, later);
}

// Tiles of nearly the same height, so that none is left with too few sums to hide the latency.
template <class W, int kMost, int kTall = kTallRows>
void multiply_block(const Block& b) {
  Ahead later{{}, 0};
  if (b.rows <= kTall) return multiply_some_rows<W, kTall, true>(b, 0, b.rows, later);
  constexpr Index kColumns = W::panels(kMost) * kPanel;
  const Index tiles_of_rows = (b.rows + kMost - 1) / kMost;
  const Index tiles_of_columns = (b.columns + kColumns - 1) / kColumns;
  const Index stretches = (b.k + kStretchOf<W> - 1) / kStretchOf<W>;
  later = {b.next, b.next.share(tiles_of_rows * tiles_of_columns * stretches)};
  Index row = b.rows / tiles_of_rows;
  multiply_some_rows<W, kMost, true>(b, 0, row, later);
  while (row < b.rows) {
    const Index left = b.rows - row, tiles = (left + kMost - 1) / kMost;
    const Index n = (left + tiles - 1) / tiles;
    multiply_some_rows<W, kMost, false>(b, row, n, later);
    row += n;
  }
}

// Kernels::widen, by a table of a scale: set(scale), and widen(codes, k, to, ahead) of one panel.
template <class Table>
void widen_panels(const CodePanels& f) {
  Table table;
  table.set(f.scale);
  for (Index p = 0; p < f.panels; ++p)
    table.widen(f.codes + p * f.panel_bytes, f.k, f.to + p * f.to_panel, kFetchAhead);
}

// Weights and lanes of x in FP32.
struct F32Weights {
  static constexpr bool kScaled = false, kRefuses = false;
  static constexpr int kUnits = 1, kBytes = 64, kLanesPerK2 = 2;
  static constexpr int panels(int rows) { return panels_at_once(rows); }
  void begin(float) {}
  void load(const char* p, Vec (&v)[1][kVectors]) const {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) v[0][i] = load_all(p + i * kWidth * 4);
  }
  static Vec multiply(Vec a, Vec v, Vec sum) {
    return fma(a, v, sum);
  }
};

// Weights in BF16, lanes of x BF16 numbers held as FP32: a pair of k is two multiply-adds.
struct WidenedWeights {
  static constexpr bool kScaled = false, kRefuses = false;
  static constexpr int kUnits = 2, kBytes = 64, kLanesPerK2 = 2;
  static constexpr int panels(int rows) { return panels_at_once(rows); }
  void begin(float) {}
  void load(const char* p, Vec (&v)[2][kVectors]) const {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
      const Vec pairs = load_all(p + i * kWidth * 4);
      v[0][i] = earlier_of_pairs(pairs);
      v[1][i] = later_of_pairs(pairs);
    }
  }
  static Vec multiply(Vec a, Vec v, Vec sum) {
    return fma(a, v, sum);
  }
};

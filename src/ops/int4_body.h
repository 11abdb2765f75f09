// Register tiles of a block (ops/int4_kernels.h), for each vector form. Included inside a target
// region and an anonymous namespace that has defined
//   Ints, Floats, kWidth     vectors of kWidth 32-bit numbers
//   set_all(int)             the same number everywhere
//   low_codes, high_codes    of kWidth outputs: four numbers of 4 bits each, from bytes at p
//   four(p)                  four bytes of x to every 32 bits
//   dot(sum, partial, codes, x)    sum += products of unsigned bytes (below 16) and signed bytes
//   Partial, settle          what dot leaves open, and adding it to the sum every 32 numbers of k
//   wide_scales(p)           kWidth BF16 numbers
//   add_product(Ints, Floats, Floats)    fma of the first as floats
//   scaled(float, Floats), load_some, store_some
//   largest_magnitude, largest_of, round_product, add_ints, sum_of, store_bytes    for quantize
//   kTileRows, kTilePanels, kRowPanels    the tile of several rows, the panels of one of one row
//
// No `#pragma once`: each form has its own copy.

constexpr int kVectors = static_cast<int>(kPanel / kWidth);  // of a panel
constexpr Index kFetchAhead = 2048;  // bytes of codes; into the second level, as in gemm_body.h
constexpr Index kSettle = 32;

// kRows of x times kPanels panels. The first tile of rows brings the panels from memory.
template <int kRows, int kPanels, bool kFetch>
void multiply_tile(const Block& b, Index row, Index column) {
  constexpr int kSums = kPanels * kVectors;
  const Index groups = b.layout.groups, group = b.layout.group, panel_bytes = b.layout.bytes();
  const std::uint8_t* panel = b.panels + column / kPanel * panel_bytes;
  const std::int8_t* x = b.x.codes + row * groups * group;
  float* y = b.y + row * b.y_stride + column;
  const auto width = [&](int v) {
    const Index n = b.columns - column - v * kWidth;
    return n < 0 ? 0 : n < kWidth ? n : Index{kWidth};
  };
  Floats sums[kRows][kSums];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kSums; ++v)
      sums[r][v] = load_some(y + r * b.y_stride + v * kWidth, b.add ? width(v) : 0);
  const Index groups_ahead = kFetchAhead / (group * kPanel / 2);
  for (Index g = 0; g < groups; ++g) {
    // What is read some groups later; past the end of these panels, the beginning of the next ones.
    const bool past = g + groups_ahead >= groups;
    const std::uint8_t* later = past ? panel + kPanels * panel_bytes : panel;
    const Index group_later = past ? g + groups_ahead - groups : g + groups_ahead;
    const std::uint8_t* codes_later = later + group_later * group * kPanel / 2;
    const std::uint8_t* scales_later = later + b.layout.codes_bytes() + group_later * kPanel * 2;
    if (kFetch)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) __builtin_prefetch(scales_later + p * panel_bytes, 0, 2);
    Ints dots[kRows][kSums];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kSums; ++v) dots[r][v] = set_all(-8 * b.x.sums[(row + r) * groups + g]);
    for (Index first = 0; first < group; first += kSettle) {
      Partial partial[kRows][kSums] = {};
      for (Index k = first; k < first + kSettle; k += kStep) {
        const std::uint8_t* codes = panel + (g * group + k) * kPanel / 2;
        const std::int8_t* row_codes = x + g * group + k;
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) {
          if (kFetch) __builtin_prefetch(codes_later + p * panel_bytes + k * kPanel / 2, 0, 2);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            const std::uint8_t* from = codes + p * panel_bytes + v * kWidth * 4;
            const Ints low = low_codes(from), high = high_codes(from);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
              const std::int8_t* at = row_codes + r * groups * group;
              dot(dots[r][p * kVectors + v], partial[r][p * kVectors + v], low, four(at));
              dot(dots[r][p * kVectors + v], partial[r][p * kVectors + v], high, four(at + 4));
            }
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kSums; ++v) settle(dots[r][v], partial[r][v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kSums; ++v) {
      const Floats scales =
          wide_scales(panel + v / kVectors * panel_bytes + b.layout.codes_bytes() +
                      (g * kPanel + v % kVectors * kWidth) * 2);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
        sums[r][v] =
            add_product(dots[r][v], scaled(b.x.scales[(row + r) * groups + g], scales), sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kSums; ++v)
      store_some(y + r * b.y_stride + v * kWidth, sums[r][v], width(v));
}

template <int kRows, int kPanels>
void multiply_rows(const Block& b, Index row) {
  Index column = 0;
  const Index last = b.columns - 1;
  for (; last / kPanel - column / kPanel + 1 >= kPanels; column += kPanels * kPanel) {
    if (row == 0)
      multiply_tile<kRows, kPanels, true>(b, row, column);
    else
      multiply_tile<kRows, kPanels, false>(b, row, column);
  }
  for (; column <= last; column += kPanel) {
    if (row == 0)
      multiply_tile<kRows, 1, true>(b, row, column);
    else
      multiply_tile<kRows, 1, false>(b, row, column);
  }
}

void multiply(const Block& b) {
  Index row = 0;
  for (; b.rows - row >= kTileRows; row += kTileRows) multiply_rows<kTileRows, kTilePanels>(b, row);
  for (; b.rows - row >= 2; row += 2) multiply_rows<2, kTilePanels>(b, row);
  if (row < b.rows) multiply_rows<1, kRowPanels>(b, row);
}

float quantize(const float* x, Index n, Index group, std::int8_t* codes, std::int32_t* sum) {
  Ints largest = set_all(0);
  for (Index i = 0; i < n; i += kWidth)
    largest = largest_magnitude(largest, load_some(x + i, n - i < kWidth ? n - i : Index{kWidth}));
  const std::int32_t bits = largest_of(largest);
  const float most = __builtin_bit_cast(float, bits);
  const bool finite = bits < 0x7F800000, codes_it = finite && most >= 0x1p-100f;
  const float inverse = codes_it ? 127.0f / most : 0.0f;
  Ints total = set_all(0);
  for (Index i = 0; i < group; i += kWidth) {
    const Index there = n - i < 0 ? 0 : n - i < kWidth ? n - i : Index{kWidth};
    const Ints rounded =
        codes_it ? round_product(load_some(x + (there > 0 ? i : 0), there), inverse) : set_all(0);
    total = add_ints(total, rounded);
    store_bytes(codes + i, rounded);
  }
  *sum = sum_of(total);
  return !finite ? __builtin_nanf("") : codes_it ? most / 127.0f : 0.0f;
}

// The parts that matrix products are made of, with a row per instruction set. For ops/ only.
//
// A product is cut into blocks: some rows of x times up to kGroup panels of 16 outputs (or, of few
// rows, more) over a stretch of K. Every element of y is one chain of multiply-adds over K from
// first to last, which goes through memory between stretches; so its bits depend neither on how the
// rows and panels are shared out nor on where K is cut.
#pragma once
#include <cstdint>
#include <limits>
#include <span>

#include "ops/isa.h"
#include "ops/linear.h"
#include "ops/next_lines.h"

namespace minke::gemm {

constexpr Index kPanel = PackedWeights::kPanel;
constexpr Index kGroup = 4;  // panels of one block
constexpr Index kAnyRows = std::numeric_limits<Index>::max();
constexpr Index kWideRows = 2;  // blocks of up to so many rows may have Kernels::wide_group panels
constexpr Index kStep = 32;     // K is padded with zeros to a multiple of this
constexpr Index kScale = 128;   // K under one FP8 scale
constexpr Index kDeepE4m3 = 512;  // of k in one block of more than a few rows in form E4m3

// What a product reads instead of x. Every lane has 32 bits.
enum class Lanes {
  F32,      // a lane is an FP32 number
  Rounded,  // a lane is a BF16 number, held as FP32
  Pairs     // a lane is two BF16 numbers, the earlier one in the low half
};
constexpr Index lanes_of(Lanes lanes, Index k) {
  return lanes == Lanes::Pairs ? k / 2 : k;
}

// y [rows, columns] = (or +=) x w^T over k (a multiple of kStep, or of 4 where w is in form E4m3).
struct Block {
  const void* x;   // [rows][x_stride] lanes
  Index x_stride;  // lanes
  Index rows;
  const void* w;      // panels
  Index panel_bytes;  // from one panel to the next
  Index columns;      // 1 to the block's panels * kPanel
  Index k;
  const float* scales;  // form E4m3: one for each kScale of k
  float* y;
  Index y_stride;
  bool add;
  NextLines next = {};  // to be fetched meanwhile, where there are many rows
};

// Numbers to be laid out as lanes: `outer` rows of k numbers, or their transpose.
struct Layout {
  const float* from;
  Index stride;  // of `from`, numbers
  Index outer, k;
  Index padded_k;  // what lies beyond k becomes zero
  void* to;
  Index to_stride;               // lanes from one row to the next
  bool past_cache = false;       // panels: too much to be kept in cache
  const BF16* narrow = nullptr;  // the numbers, instead of `from`; not of `panel`
};

// E4M3 codes to be laid out as rows of lanes, each kScale of a row times its scale where there are
// scales: powers of two whose products with the codes are normal BF16 numbers.
struct CodeLayout {
  const std::uint8_t* codes;
  Index stride;
  Index rows, k;
  Index padded_k;  // what lies beyond k becomes zero
  void* to;
  Index to_stride;                // lanes from one row to the next
  const float* scales = nullptr;  // [rows][scale_stride]
  Index scale_stride = 0;
};

// Panels of E4M3 codes under one scale, to become panels of BF16(code * scale).
struct CodePanels {
  const std::uint8_t* codes;
  Index panel_bytes;  // from one panel to the next
  Index panels, k;    // a multiple of 4, at most kScale
  float scale;
  std::uint16_t* to;
  Index to_panel;  // numbers from one panel to the next
};

struct Kernels {
  Lanes bf16_lanes;  // of x in forms Bf16 and E4m3: Rounded or Pairs
  void (*multiply_f32)(const Block&);
  void (*multiply_bf16)(const Block&);
  // Widens codes on the way: for up to e4m3_rows rows. Null where codes are always widened first.
  void (*multiply_e4m3)(const Block&);
  Index e4m3_rows;  // or kAnyRows
  // Panels of a block of up to kWideRows rows in forms Bf16 and E4m3: kGroup, or 2 * kGroup (no
  // more than PackedWeights::kTogether, nor than the outputs under one FP8 scale).
  Index wide_group;

  // Rows: [outer][to_stride] from [outer][k] or, transposed, from [k][outer].
  void (*rows[3])(const Layout&);
  void (*rows_transposed[3])(const Layout&);
  // One panel, [lane of k][16], outer <= 16; F32 or Pairs. The rest of 16 becomes zero.
  void (*panel[3])(const Layout&);
  void (*panel_transposed[3])(const Layout&);

  void (*widen)(const CodePanels&);
  // x [k], k <= kScale, to codes; the result is their scale.
  float (*quantize)(const float* x, Index k, std::uint8_t* codes);
  // To rows of lanes; Rounded or Pairs.
  void (*code_rows[3])(const CodeLayout&);
  // y = (or +=) sums [rows, columns] * row_scales [rows][row_stride] * scale.
  void (*add_scaled)(const float* sums, Index sums_stride, const float* row_scales,
                     Index row_stride, float scale, Index rows, Index columns, float* y,
                     Index y_stride, bool add);
  // y [rows, columns] += sums * row_scales [rows] * column_scales [columns].
  void (*add_outer_scaled)(const float* sums, Index sums_stride, const float* row_scales,
                           const float* column_scales, Index rows, Index columns, float* y,
                           Index y_stride);
};

extern const Kernels kScalar;
// The row below with what the instruction set does better; to be called where it is available.
Kernels with_avx2(Kernels below);
Kernels with_avx512(Kernels below);
Kernels with_avx512_bf16(Kernels below);
Kernels with_amx(Kernels below);

// Whether there is a tile unit (AMX) that does what vectors do; else AVX-512 stands in its place.
bool tiles_agree();

// The row of the chosen instruction set.
const Kernels& kernels();

// The 16 outputs of four k in form E4m3 lie in 64 bytes so that interleaving the low and the high
// halves of each 16 bytes gives the first and the second pair of k: this is where the 16 bits of
// pair p (0 or 1) of output n are.
constexpr Index code_position(Index p, Index n) {
  return n / 4 * 8 + p * 4 + n % 4;
}

struct Product {
  View2<const float> x = {};  // or, where it is empty, narrow_x or x_codes
  const PackedWeights* w;
  View2<float> y;
  View2<const BF16> narrow_x = {};
  Fp8View x_codes = {};
  Write write = Write::Overwrite;
  // Each tile is made right after that of the product before, whose y has the same extents and
  // whose w has the same form.
  bool joined = false;
};
enum class Arithmetic { OfForm, Fp8 };  // Fp8: codes of x times those of w, scales every 128 of K
struct Tile {                           // of y
  Index row, rows, column, columns;
};
// Called for every tile of products[first] when it is there, as are those of what is joined to it.
using Finish = FunctionRef<void(std::size_t first, const Tile& tile)>;
void multiply(std::span<const Product> products, Arithmetic arithmetic, Finish finish);
void multiply(std::span<const Product> products, Arithmetic arithmetic);

struct Gradient {
  View2<const float> dy = {}, x = {};  // or, where they are empty, narrow_dy and narrow_x
  View2<float> dw;
  View2<const BF16> narrow_dy = {}, narrow_x = {};
  // Where given, of tiles of 128 tokens: [tiles, N] and [tiles, K]. Each tile's sums are scaled.
  View2<const float> dy_scales = {}, x_scales = {};
};
void multiply_gradients(std::span<const Gradient> gradients, Precision precision);

}  // namespace minke::gemm

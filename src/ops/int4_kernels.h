// The parts that products with 4-bit weights are made of, with a row per instruction set. For ops/
// only.
//
// Every element of y is one chain over the groups of K, first to last:
//   y = fma(sum_k (code[k] - 8) q[k], x_scale * w_scale, y)
// where the inner sum is of integers, exact, and below 2^24. So all forms give the same bits.
#pragma once
#include <cstdint>

#include "ops/isa.h"
#include "tensor/view.h"

namespace minke::int4 {

inline constexpr Index kPanel = 16;        // outputs of a panel
inline constexpr Index kPanelsAtOnce = 4;  // of one block
inline constexpr Index kStep = 8;          // k in 64 bytes of a panel

// A panel is its codes, then its scales. Codes: for each kStep of k 64 bytes, in which byte
// 4 n + j has k = j of output n in its low half and k = 4 + j in its high half. Scales: for each
// group 16 BF16. Both begin at a multiple of 64 bytes.
struct PanelLayout {
  Index groups, group;
  Index codes_bytes() const { return groups * group * kPanel / 2; }
  Index scales_bytes() const { return (groups * kPanel * 2 + 63) / 64 * 64; }
  Index bytes() const { return codes_bytes() + scales_bytes(); }
};

// Rows of x in whole groups, see quantize.
struct Rows {
  const std::int8_t* codes;  // [rows][groups * group]
  const float* scales;       // [rows][groups]
  const std::int32_t* sums;  // [rows][groups] of the codes
};

// y [rows, columns] = (or +=) x w^T over all of K.
struct Block {
  Rows x;
  Index rows;
  const std::uint8_t* panels;
  PanelLayout layout;
  Index columns;  // 1 to kPanelsAtOnce * kPanel
  float* y;
  Index y_stride;
  bool add;
};

struct Kernels {
  // n <= group numbers to codes -127..127 (the rest of the group becomes 0), their sum, and their
  // scale max |x| / 127. Where a number is not finite the scale is NaN and the codes are 0.
  float (*quantize)(const float* x, Index n, Index group, std::int8_t* codes, std::int32_t* sum);
  void (*multiply)(const Block&);
};

extern const Kernels kScalar;
Kernels with_avx2();
Kernels with_avx512_vnni();

// The row of the chosen instruction set.
const Kernels& kernels();

}  // namespace minke::int4

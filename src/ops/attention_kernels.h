// The inner loops of attention, with a row per instruction set. For ops/ only.
#pragma once
#include "ops/attention.h"
#include "ops/isa.h"

namespace minke {

// c [rows, columns] = (or +=) a b over k. Element (i, p) of a is a[i * a_row + p * a_k], and one of
// the two strides is 1; rows of b and c are dense. columns is a multiple of the lanes. Every
// element is one chain of multiply-adds over k from first to last, whatever the rows and columns
// beside it.
//
// Where a_k is 1, the memory [fetch, fetch_end) is meanwhile brought to the second level of cache,
// a line for every step of k of a block, until all is there or the product is done.
struct SmallProduct {
  const float* a;
  Index a_row, a_k;
  const float* b;
  Index b_stride;
  float* c;
  Index c_stride;
  Index rows, columns, k;
  bool add;
  const char *fetch = nullptr, *fetch_end = nullptr;
};

// One step of the running softmax: s [keys, width], a column per query row. What a column may see
// are the keys up to last_key[column] (counted within the tile; read when `masked`).
//   top' = max(top, max s),  s = e^(scale s - top'),  shrink = e^(top - top'),
//   total = total shrink + sum s
struct SoftmaxStep {
  float* s;
  Index width, keys;
  float scale;
  bool masked;
  const float* last_key;
  float *top, *total, *shrink;  // [width]
};

// Of one query row and the keys of a tile, columns as above:
//   p = e^(scale s - lse),  ds = p (dp - delta) scale;  both 0 beyond last_key. In place.
struct SoftmaxBackward {
  float *s, *dp;  // [columns]: s becomes p, dp becomes ds
  Index columns, last_key;
  float scale, lse, delta;
};

// Rows 2i and 2i + 1 of a matrix as row i of pairs, zeros for what is not there; columns up to the
// next multiple of 16 become zero.
struct Interleaving {
  const BF16* rows;
  Index stride, n_rows, columns;
  float* to;
  Index to_stride;
};

// Pairs: two BF16 numbers, the earlier one in the low half, in the place of an FP32 number.
struct PairKernels {
  // Of pairs along k: an element is one chain over them, or over groups of them that begin at fixed
  // places; sums are in FP32. Zeros in place of what is beyond the last number change nothing.
  void (*multiply)(const SmallProduct&);
  // Where it has to turn the rows of a that lie in columns (a_row 1): who multiplies them several
  // times turns them himself.
  bool turns;
  // c = a b^T, both along k: row j of b is column j of c, and columns is a multiple of 4. An
  // element is a sum of 16 chains over k, in a fixed order. Null where it is no better than
  // multiply: it is where k is long, for then neither operand is turned and both lie in lines that
  // follow each other.
  void (*dots)(const SmallProduct&);
  // to[i] = (a[i], b[i]), rounded. `to` may be a or b.
  void (*pair_up)(const float* a, const float* b, float* to, Index n);
  void (*interleave)(const Interleaving&);
  void (*widen_codes)(const E4M3* codes, float scale, BF16* y, Index n);  // rounded once
};

struct AttentionKernels {
  Index lanes;
  void (*multiply)(const SmallProduct&);
  void (*softmax_step)(const SoftmaxStep&);
  void (*softmax_backward)(const SoftmaxBackward&);
  // y = factor y + factor_x x
  void (*blend)(float factor, float* y, float factor_x, const float* x, Index n);
  float (*exp)(float x);  // the exponential that the other kernels use
  void (*widen)(const BF16* x, float* y, Index n);
  void (*widen_codes)(const E4M3* codes, float scale, float* y, Index n);  // y = codes * scale
  // to [columns, width]: column r is the row rows[r], 0 for r >= n_rows. width is a multiple of 16.
  void (*transpose)(const float* const* rows, Index n_rows, Index columns, float* to, Index width);
  const PairKernels* pairs;  // null where they are no faster than FP32
};

namespace scalar {
extern const AttentionKernels attention_kernels;
}
namespace avx2 {
extern const AttentionKernels attention_kernels;
}
namespace avx512 {
extern const AttentionKernels attention_kernels;
}
namespace avx512_bf16 {
extern const PairKernels pair_kernels;
}
namespace amx {
PairKernels pair_kernels();
}

// The row of the chosen instruction set.
const AttentionKernels& attention_kernels();

// Memory of this thread for one piece of work, of at least n numbers; what it held is lost.
float* attention_scratch(Index n);

}  // namespace minke

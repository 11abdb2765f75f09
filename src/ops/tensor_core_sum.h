// A model of how FP8 tensor cores add, to see what the report's 3.3.2 and 3.5.2 describe: an
// instruction takes 32 products and the accumulator, shifts all of them right to the largest
// exponent among them, keeps the highest 14 bits of each and truncates the rest; their sum is the
// new accumulator. Without promotion that accumulator lives over the whole of K. With promotion it
// is added in FP32 to another one every N_C elements of K and begins at zero again.
//
// What is modelled: the alignment, the truncation towards zero to `bits` binary digits counted from
// the largest exponent, and 32 terms an instruction. The sum within one instruction is exact, and
// nothing else of a device (order of instructions, rounding of the last result) is claimed.
#pragma once
#include "tensor/view.h"

namespace minke {

struct TensorCoreSum {
  int bits = 14;
  Index terms = 32;         // of one instruction
  Index promote_every = 0;  // N_C, a multiple of `terms`; 0: never
};

// The sum of a[i] b[i]; a and b [K] should be E4M3 values, whose products are exact in FP32.
float tensor_core_dot(View1<const float> a, View1<const float> b, const TensorCoreSum& how);

}  // namespace minke

// Products of pairs of BF16 numbers by TDPBF16PS. It takes denormal numbers as zero.
#include "ops/amx_tiles.h"
#include "ops/attention_tiles.h"

namespace minke::amx {

PairKernels pair_kernels() {
  PairKernels kernels = avx512_bf16::pair_kernels;
  kernels.multiply = [](const SmallProduct& p) {
    PairProduct<HardwareTiles>(p).multiply(avx512::attention_kernels.transpose);
  };
  kernels.turns = true;
  kernels.dots = nullptr;
  return kernels;
}

}  // namespace minke::amx

// Activations to E4M3 in tiles of 1x128, as FP8 products take them.
//
//   scale = max(amax of the tile, 1e-4) / 448      code = E4M3(x / scale)
//
// The same codes and scales as quantize_blocks (tensor/fp8_blocks.h) with kActivationBlock, on
// every instruction set. The report, 3.3.2.
#pragma once
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

// x [T, K] -> codes [T, K], scales [T, ceil(K / 128)], overwritten. ShapeError when they disagree.
void quantize_rows(View2<const float> x, View2<E4M3> codes, View2<float> scales);

}  // namespace minke

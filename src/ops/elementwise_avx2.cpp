#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "ops/elementwise.h"
#include "ops/target.h"

#define MINKE_LANES 8

MINKE_TARGET_AVX2_BEGIN
namespace minke::avx2 {
namespace {
#include "ops/lanes_body.h"

#include "ops/elementwise_body.h"
}  // namespace
}  // namespace minke::avx2
MINKE_TARGET_AVX2_END

namespace minke::avx2 {
const ElementwiseKernels elementwise_kernels = kKernels;
}

#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "ops/fp8_tiles_kernels.h"
#include "ops/target.h"

#define MINKE_LANES 8

MINKE_TARGET_AVX2_BEGIN
namespace minke::avx2 {
namespace {
#include "ops/lanes_body.h"

#include "ops/fp8_tiles_body.h"
}  // namespace
}  // namespace minke::avx2
MINKE_TARGET_AVX2_END

namespace minke::avx2 {
const Fp8Kernels fp8_kernels = kKernels;
}

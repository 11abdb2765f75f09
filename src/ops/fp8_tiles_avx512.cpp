#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "ops/fp8_tiles_kernels.h"
#include "ops/target.h"

#define MINKE_LANES 16

MINKE_TARGET_AVX512_BEGIN
namespace minke::avx512 {
namespace {
#include "ops/lanes_body.h"

#include "ops/fp8_tiles_body.h"
}  // namespace
}  // namespace minke::avx512
MINKE_TARGET_AVX512_END

namespace minke::avx512 {
const Fp8Kernels fp8_kernels = kKernels;
}

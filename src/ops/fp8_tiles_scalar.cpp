// One lane: what machines without AVX2 run, and the same code path that the wide forms take.
#include <bit>
#include <cstdint>

#include "ops/fp8_tiles_kernels.h"

#define MINKE_LANES 1

namespace minke::scalar {
namespace {
#include "ops/lanes_body.h"

#include "ops/fp8_tiles_body.h"
}  // namespace

const Fp8Kernels fp8_kernels = kKernels;
}  // namespace minke::scalar

// One lane: what machines without AVX2 run, and the same code path that the wide forms take.
#include <bit>
#include <cstdint>

#include "ops/elementwise.h"

#define MINKE_LANES 1

namespace minke::scalar {
namespace {
#include "ops/lanes_body.h"

#include "ops/elementwise_body.h"
}  // namespace

const ElementwiseKernels elementwise_kernels = kKernels;
}  // namespace minke::scalar

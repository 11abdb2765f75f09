// One lane: what machines without AVX2 run, and the same code path that the wide forms take.
#include <bit>
#include <cstdint>

#include "ops/attention_kernels.h"

#define MINKE_LANES 1

namespace minke::scalar {
namespace {
#include "ops/lanes_body.h"

#include "ops/attention_body.h"
}  // namespace

const AttentionKernels attention_kernels = kKernels;
}  // namespace minke::scalar

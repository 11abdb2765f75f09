#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "ops/attention_kernels.h"
#include "ops/target.h"

#define MINKE_LANES 16

MINKE_TARGET_AVX512_BEGIN
namespace minke::avx512 {
namespace {
#include "ops/lanes_body.h"

#include "ops/attention_body.h"
}  // namespace
}  // namespace minke::avx512
MINKE_TARGET_AVX512_END

namespace minke::avx512 {
const AttentionKernels attention_kernels = kKernels;
}

// The inner loops of ops/fp8_tiles.h, with a row per instruction set. For ops/ only. The result of
// each is defined to the last bit, so that all rows give the same one.
#pragma once
#include "ops/fp8_tiles.h"
#include "ops/isa.h"

namespace minke {

struct Fp8Kernels {
  // The largest |x[i]|; what is not a number does not count.
  float (*largest)(const float* x, Index n);
  // codes[i] = E4M3(x[i] / scale). Values are clipped only under the largest scale of a tile, and
  // counted there alone.
  void (*encode)(const float* x, Index n, float scale, std::uint8_t* codes, Fp8Counts* counts);
  // y[i] = float(codes[i]) * scale
  void (*decode)(const std::uint8_t* codes, Index n, float scale, float* y);
  // y[i] = float(E4M3(x[i] / scale)) * scale; y may be x
  void (*round)(const float* x, Index n, float scale, float* y, Fp8Counts* counts);
  // maxima[j] = the larger of it and |x[j]|
  void (*raise_maxima)(const float* x, Index n, float* maxima);
  // decode, then raise_maxima
  void (*decode_raising)(const std::uint8_t* codes, Index n, float scale, float* y, float* maxima);
  // y[j] = E4M3(x[j] / scales[j]); with `inverses` of the scales, then powers of two, times
  // scales[j]
  void (*round_by)(const float* x, Index n, const float* scales, const float* inverses, BF16* y);
  // E5M6 codes of x[i] / scale, a power of two; and back
  void (*encode_e5m6)(const float* x, Index n, float scale, std::uint16_t* codes);
  void (*decode_e5m6)(const std::uint16_t* codes, Index n, float scale, float* y);
};

namespace scalar {
extern const Fp8Kernels fp8_kernels;
}
namespace avx2 {
extern const Fp8Kernels fp8_kernels;
}
namespace avx512 {
extern const Fp8Kernels fp8_kernels;
}

inline const Fp8Kernels& fp8_kernels() {
  static constexpr FormTable<Fp8Kernels> table{&scalar::fp8_kernels, &avx2::fp8_kernels,
                                               &avx512::fp8_kernels};
  return table.chosen();
}

}  // namespace minke

// What the vector forms of ops/gemm.h share. Nothing here is a function: those would be linked in
// the form of one instruction set and called in another.
#pragma once
#include <bit>
#include <cstdint>
#include <limits>

#define MINKE_GEMM_INLINE static inline __attribute__((always_inline))
#define MINKE_GEMM_MEMBER inline __attribute__((always_inline))

namespace minke::gemm {

// The values of the E4M3 codes without sign.
struct alignas(64) CodeValues {
  float of[128];
  constexpr CodeValues() : of{} {
    for (int code = 0; code < 127; ++code) {
      float value = static_cast<float>(code < 8 ? code : 8 + code % 8) / 512.0f;
      for (int e = code / 8; e > 1; --e) value *= 2.0f;
      of[code] = value;
    }
    of[127] = std::numeric_limits<float>::quiet_NaN();
  }
};
inline constexpr CodeValues kCodeValues;

}  // namespace minke::gemm

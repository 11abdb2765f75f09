// The definitions of ops/int4_kernels.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/int4_kernels.h"
#include "tensor/dtype.h"

namespace minke::int4 {
namespace {

constexpr float kLeastMaximum = 0x1p-100f;  // below it 127 / max |x| overflows or nearly does

float quantize(const float* x, Index n, Index group, std::int8_t* codes, std::int32_t* sum) {
  std::uint32_t largest_bits = 0;
  for (Index i = 0; i < n; ++i)
    largest_bits = std::max(largest_bits, std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu);
  const float largest = std::bit_cast<float>(largest_bits);
  std::memset(codes, 0, static_cast<std::size_t>(group));
  *sum = 0;
  if (largest_bits >= 0x7F800000u) return std::numeric_limits<float>::quiet_NaN();
  if (largest < kLeastMaximum) return 0;
  const float inverse = 127.0f / largest;
  for (Index i = 0; i < n; ++i) {
    codes[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * inverse));
    *sum += codes[i];
  }
  return largest / 127.0f;
}

// Of output n of the panel, number k.
int code_at(const std::uint8_t* panel, Index k, Index n) {
  const std::uint8_t byte = panel[k / kStep * 64 + 4 * n + k % 4];
  return k % kStep < 4 ? byte & 15 : byte >> 4;
}

void multiply(const Block& b) {
  const auto [groups, group] = b.layout;
  for (Index r = 0; r < b.rows; ++r)
    for (Index c = 0; c < b.columns; ++c) {
      const std::uint8_t* panel = b.panels + c / kPanel * b.layout.bytes();
      const std::int8_t* x = b.x.codes + r * groups * group;
      float sum = b.add ? b.y[r * b.y_stride + c] : 0.0f;
      for (Index g = 0; g < groups; ++g) {
        std::int32_t dot = -8 * b.x.sums[r * groups + g];
        for (Index k = g * group; k < (g + 1) * group; ++k)
          dot += code_at(panel, k, c % kPanel) * x[k];
        BF16 scale;
        std::memcpy(&scale, panel + b.layout.codes_bytes() + (g * kPanel + c % kPanel) * 2, 2);
        sum = std::fma(static_cast<float>(dot), b.x.scales[r * groups + g] * scale, sum);
      }
      b.y[r * b.y_stride + c] = sum;
    }
}

}  // namespace

const Kernels kScalar{quantize, multiply};

const Kernels& kernels() {
  static const CpuFeatures& cpu = cpu_features();
  static const Kernels avx2 = cpu.avx2 ? with_avx2() : kScalar;
  static const Kernels avx512 = cpu.avx512_vnni ? with_avx512_vnni() : avx2;
  static const FormTable<Kernels> table{&kScalar, &avx2, &avx512};
  return table.chosen();
}

}  // namespace minke::int4

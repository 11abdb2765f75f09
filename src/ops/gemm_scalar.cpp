// The portable row: plain loops, the same order of additions as the definition.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "ops/gemm.h"

namespace minke::gemm {
namespace {

float from_bf16(std::uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

// k of one panel: value(k, n).
template <class Value>
void multiply_panel(const Block& b, Index columns, float* y, Value value) {
  const float* x = static_cast<const float*>(b.x);
  for (Index r = 0; r < b.rows; ++r, x += b.x_stride, y += b.y_stride) {
    float sums[kPanel] = {};
    if (b.add) std::copy_n(y, columns, sums);
    for (Index k = 0; k < b.k; ++k)
      for (Index n = 0; n < kPanel; ++n) sums[n] += x[k] * value(k, n);
    std::copy_n(sums, columns, y);
  }
}

template <class Element, class Value>
void multiply_panels(const Block& b, Value value) {
  for (Index first = 0; first < b.columns; first += kPanel) {
    const auto* w = reinterpret_cast<const Element*>(static_cast<const char*>(b.w) +
                                                     first / kPanel * b.panel_bytes);
    multiply_panel(b, std::min(kPanel, b.columns - first), b.y + first,
                   [&](Index k, Index n) { return value(w, k, n); });
  }
}

void multiply_f32(const Block& b) {
  multiply_panels<float>(b, [](const float* w, Index k, Index n) { return w[k * kPanel + n]; });
}

void multiply_bf16(const Block& b) {
  multiply_panels<std::uint16_t>(b, [](const std::uint16_t* w, Index k, Index n) {
    return from_bf16(w[(k / 2 * kPanel + n) * 2 + k % 2]);
  });
}

// Where lane l of outer index i goes.
struct ToRows {
  static std::size_t at(const Layout& f, Index i, Index l) { return i * f.to_stride + l; }
};
struct ToPanel {
  static std::size_t at(const Layout&, Index i, Index l) { return l * kPanel + i; }
};
template <Lanes kLanes, bool kTransposed, class Target>
void lay_out(const Layout& f) {
  auto* to = static_cast<std::uint32_t*>(f.to);
  const Index outer = std::is_same_v<Target, ToPanel> ? kPanel : f.outer;
  const auto number = [&](Index i, Index k) {
    if (i >= f.outer || k >= f.k) return 0.0f;
    const Index at = kTransposed ? k * f.stride + i : i * f.stride + k;
    return f.narrow ? float(f.narrow[at]) : f.from[at];
  };
  for (Index i = 0; i < outer; ++i)
    for (Index l = 0; l < lanes_of(kLanes, f.padded_k); ++l) {
      std::uint32_t lane;
      if constexpr (kLanes == Lanes::F32)
        lane = std::bit_cast<std::uint32_t>(number(i, l));
      else if constexpr (kLanes == Lanes::Rounded)
        lane = std::uint32_t{BF16(number(i, l)).bits} << 16;
      else
        lane = BF16(number(i, 2 * l)).bits | std::uint32_t{BF16(number(i, 2 * l + 1)).bits} << 16;
      to[Target::at(f, i, l)] = lane;
    }
}

void widen(const CodePanels& f) {
  for (Index p = 0; p < f.panels; ++p)
    for (Index pair = 0; pair < f.k / 2; ++pair)
      for (Index n = 0; n < kPanel; ++n)
        for (Index i = 0; i < 2; ++i) {
          const Index at = pair / 2 * 64 + code_position(pair % 2, n) * 2 + i;
          E4M3 code;
          code.code = f.codes[p * f.panel_bytes + at];
          f.to[p * f.to_panel + (pair * kPanel + n) * 2 + i] = BF16(float(code) * f.scale).bits;
        }
}

float quantize(const float* x, Index k, std::uint8_t* codes) {
  float amax = 1e-4f;
  for (Index i = 0; i < k; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float scale = amax / 448.0f;
  for (Index i = 0; i < k; ++i) codes[i] = E4M3(x[i] / scale).code;
  return scale;
}

void code_rows(const CodeLayout& f) {
  for (Index r = 0; r < f.rows; ++r) {
    float* row = static_cast<float*>(f.to) + r * f.to_stride;
    for (Index i = 0; i < f.k; ++i) {
      E4M3 code;
      code.code = f.codes[r * f.stride + i];
      row[i] = float(code) * (f.scales ? f.scales[r * f.scale_stride + i / kScale] : 1.0f);
    }
    std::fill(row + f.k, row + f.padded_k, 0.0f);
  }
}

void add_scaled(const float* sums, Index sums_stride, const float* row_scales, Index row_stride,
                float scale, Index rows, Index columns, float* y, Index y_stride, bool add) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      const float value = sums[r * sums_stride + c] * row_scales[r * row_stride] * scale;
      y[r * y_stride + c] = add ? y[r * y_stride + c] + value : value;
    }
}

void add_outer_scaled(const float* sums, Index sums_stride, const float* row_scales,
                      const float* column_scales, Index rows, Index columns, float* y,
                      Index y_stride) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      const float value = sums[r * sums_stride + c] * row_scales[r] * column_scales[c];
      y[r * y_stride + c] = y[r * y_stride + c] + value;
    }
}

}  // namespace

const Kernels kScalar = {
    Lanes::Rounded,
    multiply_f32,
    multiply_bf16,
    nullptr,
    0,
    kGroup,
    {lay_out<Lanes::F32, false, ToRows>, lay_out<Lanes::Rounded, false, ToRows>,
     lay_out<Lanes::Pairs, false, ToRows>},
    {lay_out<Lanes::F32, true, ToRows>, lay_out<Lanes::Rounded, true, ToRows>,
     lay_out<Lanes::Pairs, true, ToRows>},
    {lay_out<Lanes::F32, false, ToPanel>, nullptr, lay_out<Lanes::Pairs, false, ToPanel>},
    {lay_out<Lanes::F32, true, ToPanel>, nullptr, lay_out<Lanes::Pairs, true, ToPanel>},
    widen,
    quantize,
    {nullptr, code_rows, nullptr},
    add_scaled,
    add_outer_scaled,
};

}  // namespace minke::gemm

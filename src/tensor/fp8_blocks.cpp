#include "tensor/fp8_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/threads.h"

namespace minke {
namespace {

constexpr float kLeastMaximum = 1e-4f, kLargestCode = 448.0f;

template <class A, class B>
void check(View2<A> x, View2<B> scales, Fp8Block block) {
  if (scales.extent(0) != block_count(x.extent(0), block.rows) ||
      scales.extent(1) != block_count(x.extent(1), block.columns))
    throw ShapeError(fmt::format("scales [{}, {}] do not fit [{}, {}] in blocks of {}x{}",
                                 scales.extent(0), scales.extent(1), x.extent(0), x.extent(1),
                                 block.rows, block.columns));
}

template <class A, class B>
void check_equal(View2<A> a, View2<B> b) {
  if (a.extents() != b.extents())
    throw ShapeError(fmt::format("[{}, {}] and [{}, {}] should be equal", a.extent(0), a.extent(1),
                                 b.extent(0), b.extent(1)));
}

const std::array<float, 256>& code_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> v;
    for (int i = 0; i < 256; ++i) {
      E4M3 e;
      e.code = static_cast<std::uint8_t>(i);
      v[static_cast<std::size_t>(i)] = e;
    }
    return v;
  }();
  return values;
}

}  // namespace

template <class T>
void block_scales(View2<const T> x, Fp8Block block, ScaleForm form, View2<float> scales) {
  check(x, scales, block);
  parallel_for(scales.extent(0), [&](Index i) {
    const auto rows = x.rows(i * block.rows, std::min(block.rows, x.extent(0) - i * block.rows));
    for (Index j = 0; j < scales.extent(1); ++j) {
      const auto tile =
          rows.columns(j * block.columns, std::min(block.columns, x.extent(1) - j * block.columns));
      float amax = 0.0f;
      for (Index r = 0; r < tile.extent(0); ++r)
        for (Index c = 0; c < tile.extent(1); ++c)
          amax = std::max(amax, std::fabs(static_cast<float>(tile(r, c))));
      const float scale = std::max(amax, kLeastMaximum) / kLargestCode;
      scales(i, j) = form == ScaleForm::PowerOfTwo ? float(UE8M0::round_up(scale)) : scale;
    }
  });
}

template <class T>
void quantize_with_scales(View2<const T> x, Fp8Block block, View2<const float> scales,
                          View2<E4M3> codes) {
  check(x, scales, block);
  check_equal(x, codes);
  parallel_for(x.extent(0), [&](Index r) {
    for (Index c = 0; c < x.extent(1); ++c)
      codes(r, c) = E4M3(static_cast<float>(x(r, c)) / scales(r / block.rows, c / block.columns));
  });
}

template <class T>
void quantize_blocks(View2<const T> x, Fp8Block block, ScaleForm form, View2<E4M3> codes,
                     View2<float> scales) {
  block_scales(x, block, form, scales);
  quantize_with_scales(x, block, View2<const float>(scales), codes);
}

template <class T>
void dequantize_blocks(View2<const E4M3> codes, View2<const float> scales, Fp8Block block,
                       View2<T> y) {
  check(codes, scales, block);
  check_equal(codes, y);
  const std::array<float, 256>& values = code_values();
  parallel_for(codes.extent(0), [&](Index r) {
    for (Index j = 0; j < scales.extent(1); ++j) {
      const float scale = scales(r / block.rows, j);
      const Index begin = j * block.columns, end = std::min(begin + block.columns, y.extent(1));
      for (Index c = begin; c < end; ++c) y(r, c) = T(values[codes(r, c).code] * scale);
    }
  });
}

bool powers_of_two(View2<const float> scales) {
  for (Index i = 0; i < scales.extent(0); ++i)
    for (Index j = 0; j < scales.extent(1); ++j) {
      int exponent;
      const float s = scales(i, j);
      if (!(s > 0.0f) || std::isinf(s) || std::frexp(s, &exponent) != 0.5f) return false;
    }
  return true;
}

template void block_scales(View2<const float>, Fp8Block, ScaleForm, View2<float>);
template void block_scales(View2<const BF16>, Fp8Block, ScaleForm, View2<float>);
template void quantize_with_scales(View2<const float>, Fp8Block, View2<const float>, View2<E4M3>);
template void quantize_with_scales(View2<const BF16>, Fp8Block, View2<const float>, View2<E4M3>);
template void quantize_blocks(View2<const float>, Fp8Block, ScaleForm, View2<E4M3>, View2<float>);
template void quantize_blocks(View2<const BF16>, Fp8Block, ScaleForm, View2<E4M3>, View2<float>);
template void dequantize_blocks(View2<const E4M3>, View2<const float>, Fp8Block, View2<float>);
template void dequantize_blocks(View2<const E4M3>, View2<const float>, Fp8Block, View2<BF16>);

}  // namespace minke

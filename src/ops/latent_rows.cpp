#include "ops/latent_rows.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/check_extents.h"
#include "ops/permute.h"
#include "ops/quantize.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

// The parts of n rows in FP8 as strided views; Byte is std::byte, const or not.
template <class Byte>
struct Fp8Parts {
  template <class T>
  using Of = std::conditional_t<std::is_const_v<Byte>, const T, T>;
  View2<Of<float>> scales;
  View2<Of<BF16>> rope;
  View2<Of<E4M3>> codes;

  Fp8Parts(const LatentRow& row, Byte* at, Index n)
      : scales(part<float>(row, at, n, row.n_scales())),
        rope(part<BF16>(row, at + row.rope_offset(), n, row.rope)),
        codes(part<E4M3>(row, at + row.code_offset(), n, row.latent)) {}

 private:
  template <class T>
  static View2<Of<T>> part(const LatentRow& row, Byte* at, Index n, Index columns) {
    const auto stride = static_cast<Index>(row.bytes() / sizeof(T));
    return View2<Of<T>>(reinterpret_cast<Of<T>*>(at), {n, columns}, {stride, 1});
  }
};

static_assert(kLatentScale == kActivationBlock.columns);

template <class T>
auto dense(const LatentRow& row, T* at, Index n) {
  return View2<T>(at, {n, row.width()});
}

constexpr bool is_nan(E4M3 x) {
  return (x.code & 0x7f) == 0x7f;
}

// A scale of NaN where a code is: see latent_rows.h.
void mark_not_finite(View2<const E4M3> codes, View2<float> scales) {
  for (Index t = 0; t < codes.extent(0); ++t)
    for (Index tile = 0; tile < scales.extent(1); ++tile) {
      const E4M3* begin = &codes(t, tile * kLatentScale);
      const Index n = std::min(kLatentScale, codes.extent(1) - tile * kLatentScale);
      if (std::any_of(begin, begin + n, is_nan))
        scales(t, tile) = std::numeric_limits<float>::quiet_NaN();
    }
}

}  // namespace

Index LatentRow::n_scales() const {
  return block_count(latent, kLatentScale);
}

std::size_t LatentRow::code_offset() const {
  return rope_offset() + static_cast<std::size_t>(rope) * sizeof(BF16);
}

std::size_t LatentRow::bytes() const {
  if (dtype != DType::F8_E4M3) return static_cast<std::size_t>(width()) * size_of(dtype);
  const std::size_t parts = code_offset() + static_cast<std::size_t>(latent);
  return (parts + sizeof(float) - 1) / sizeof(float) * sizeof(float);
}

void store_latent_rows(const LatentRow& row, View2<const float> rows, std::byte* to) {
  const Index n = rows.extent(0);
  check_extents("store_latent_rows", "rows", rows, {n, row.width()});
  if (row.dtype == DType::F32) return copy(rows, dense(row, reinterpret_cast<float*>(to), n));
  if (row.dtype == DType::BF16) return copy(rows, dense(row, reinterpret_cast<BF16*>(to), n));
  const Fp8Parts<std::byte> parts(row, to, n);
  quantize_rows(rows.columns(0, row.latent), parts.codes, parts.scales);
  mark_not_finite(parts.codes, parts.scales);
  copy(rows.columns(row.latent, row.rope), parts.rope);
}

void load_latent_rows(const LatentRow& row, const std::byte* from, View2<float> rows) {
  const Index n = rows.extent(0);
  check_extents("load_latent_rows", "rows", rows, {n, row.width()});
  if (row.dtype == DType::F32)
    return copy(dense(row, reinterpret_cast<const float*>(from), n), rows);
  if (row.dtype == DType::BF16)
    return copy(dense(row, reinterpret_cast<const BF16*>(from), n), rows);
  const Fp8Parts<const std::byte> parts(row, from, n);
  dequantize_blocks(parts.codes, parts.scales, kActivationBlock, rows.columns(0, row.latent));
  copy(parts.rope, rows.columns(row.latent, row.rope));
}

}  // namespace minke

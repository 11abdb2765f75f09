#include "ops/latent_rows.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/attention_kernels.h"
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

// Without an early end, so that it is done in vectors.
bool has_nan(const E4M3* codes, Index n) {
  bool found = false;
  for (Index i = 0; i < n; ++i) found |= (codes[i].code & 0x7f) == 0x7f;
  return found;
}

// f(row, tile, first of its codes, how many).
template <class Codes, class F>
void for_each_tile(const Codes& codes, F f) {
  const Index C = codes.extent(1);
  for (Index t = 0; t < codes.extent(0); ++t)
    for (Index c = 0; c < C; c += kLatentScale)
      f(t, c / kLatentScale, &codes(t, c), std::min(kLatentScale, C - c));
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
  // See latent_rows.h.
  for_each_tile(parts.codes, [&](Index t, Index tile, const E4M3* codes, Index count) {
    if (has_nan(codes, count)) parts.scales(t, tile) = std::numeric_limits<float>::quiet_NaN();
  });
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
  const auto widen = attention_kernels().widen_codes;
  for_each_tile(parts.codes, [&](Index t, Index tile, const E4M3* codes, Index count) {
    widen(codes, parts.scales(t, tile), &rows(t, tile * kLatentScale), count);
  });
  copy(parts.rope, rows.columns(row.latent, row.rope));
}

}  // namespace minke

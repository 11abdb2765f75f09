// Weights into panels of 16 outputs, in parallel over groups of panels.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "ops/gemm.h"
#include "ops/int4_kernels.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

using gemm::kPanel;

constexpr Index kPanelsOfTask = 16;
constexpr Index kTransposedDeep = 64;  // rows of the transpose that are read before the next panel
constexpr Index kWorthThreads = 1 << 16;  // elements

Index round_up(Index n, Index step) {
  return (n + step - 1) / step * step;
}

DType dtype_for(WeightForm form) {
  return form == WeightForm::F32    ? DType::F32
         : form == WeightForm::Bf16 ? DType::BF16
                                    : DType::F8_E4M3;
}

// body(first, last) over the panels of [n, k].
void for_panels(Index n, Index k, FunctionRef<void(Index, Index)> body) {
  const Index panels = (n + kPanel - 1) / kPanel;
  if (n * k < kWorthThreads)
    body(0, panels);
  else
    parallel_ranges(panels, kPanelsOfTask, body);
}

struct Target {
  Index n, k, padded_k;
  WeightForm form;
  char* data;

  gemm::Lanes lanes() const {
    return form == WeightForm::F32 ? gemm::Lanes::F32 : gemm::Lanes::Pairs;
  }
  char* panel(Index p, Index first_k) const {
    return data + (p * padded_k + first_k) * kPanel * (form == WeightForm::F32 ? 4 : 2);
  }
};

void fill(const Target& to, View2<const float> w) {
  const auto lay_out = gemm::kernels().panel[static_cast<int>(to.lanes())];
  for_panels(to.n, to.k, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      lay_out({w.data() + p * kPanel * w.stride(0), w.stride(0),
               std::min(kPanel, to.n - p * kPanel), to.k, to.padded_k, to.panel(p, 0), 0, true});
  });
}

void fill_transposed(const Target& to, View2<const float> w) {
  const auto lay_out = gemm::kernels().panel_transposed[static_cast<int>(to.lanes())];
  for_panels(to.n, to.k, [&](Index first, Index last) {
    for (Index k = 0; k < to.padded_k; k += kTransposedDeep)
      for (Index p = first; p < last; ++p)
        lay_out({w.data() + k * w.stride(0) + p * kPanel, w.stride(0),
                 std::min(kPanel, to.n - p * kPanel), std::min(kTransposedDeep, to.k - k),
                 std::min(kTransposedDeep, to.padded_k - k), to.panel(p, k), 0, true});
  });
}

// Two elements side by side as one number of twice the size; zero beyond the end.
template <class Pair, class Element>
Pair pair_at(const Element* row, Index i, Index n) {
  Pair pair = 0;
  if (i < n) std::memcpy(&pair, row + i, std::min<Index>(2, n - i) * sizeof(Element));
  return pair;
}

void check_form(WeightForm form) {
  if (form == WeightForm::E4m3 || form == WeightForm::Int4)
    throw ShapeError(
        "weights in forms E4M3 and Int4 are packed from codes and scales, not from FP32 numbers; "
        "quantise them first");
}

void check_again(const PackedWeights& packed, Index n, Index k) {
  if (packed.n() != n || packed.k() != k)
    throw ShapeError(fmt::format("weights [{}, {}] cannot be packed into the place of [{}, {}]", n,
                                 k, packed.n(), packed.k()));
  check_form(packed.form());
}

}  // namespace

PackedWeights::PackedWeights(Index n, Index k, WeightForm form)
    : n_(n), k_(k), padded_k_(round_up(k, gemm::kStep)), form_(form) {
  if (n <= 0 || k <= 0)
    throw ShapeError(fmt::format("weights [{}, {}] have no elements to be packed", n, k));
  data_ = Tensor::for_weights(dtype_for(form), {round_up(n, kPanel) * padded_k_});
}

std::size_t PackedWeights::panel_bytes(const PackedShape& s) {
  const Index panels = (s.n + kPanel - 1) / kPanel;
  if (s.form == WeightForm::Int4)
    return static_cast<std::size_t>(panels *
                                    int4::PanelLayout{block_count(s.k, s.group), s.group}.bytes());
  return static_cast<std::size_t>(panels * kPanel * round_up(s.k, gemm::kStep)) *
         size_of(dtype_for(s.form));
}

std::size_t PackedWeights::stored_bytes(const PackedShape& s) {
  std::size_t bytes = panel_bytes(s);
  if (s.form == WeightForm::E4m3)
    bytes +=
        static_cast<std::size_t>(block_count(s.n, gemm::kScale) * block_count(s.k, gemm::kScale)) *
        sizeof(float);
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

void PackedWeights::store(std::span<std::byte> to) const {
  MINKE_ASSERT(to.size() == stored_bytes(shape()));
  std::memcpy(to.data(), data_.raw(), data_.bytes());
  std::byte* end = to.data() + data_.bytes();
  if (scales_.defined()) {
    std::memcpy(end, scales_.raw(), scales_.bytes());
    end += scales_.bytes();
  }
  std::fill(end, to.data() + to.size(), std::byte{0});
}

PackedWeights PackedWeights::stored(const PackedShape& s, std::span<const std::byte> from) {
  MINKE_ASSERT(from.size() == stored_bytes(s));
  PackedWeights w;
  w.n_ = s.n;
  w.k_ = s.k;
  w.form_ = s.form;
  w.group_ = s.group;
  const bool int4 = s.form == WeightForm::Int4;
  w.padded_k_ = round_up(s.k, int4 ? s.group : gemm::kStep);
  const DType dtype = int4 ? DType::U8 : dtype_for(s.form);
  const std::size_t bytes = panel_bytes(s);
  w.data_ = Tensor::borrowed(dtype, {static_cast<Index>(bytes / size_of(dtype))}, from.data());
  if (s.form == WeightForm::E4m3)
    w.scales_ = Tensor::borrowed(DType::F32,
                                 {block_count(s.n, gemm::kScale), block_count(s.k, gemm::kScale)},
                                 from.data() + bytes);
  return w;
}

std::size_t PackedWeights::bytes() const {
  return data_.bytes() + (scales_.defined() ? scales_.bytes() : 0);
}

PackedWeights PackedWeights::pack(View2<const float> w, WeightForm form) {
  check_form(form);
  PackedWeights packed(w.extent(0), w.extent(1), form);
  packed.repack(w);
  return packed;
}

PackedWeights PackedWeights::pack_transposed(View2<const float> w, WeightForm form) {
  check_form(form);
  PackedWeights packed(w.extent(1), w.extent(0), form);
  packed.repack_transposed(w);
  return packed;
}

void PackedWeights::repack(View2<const float> w) {
  check_again(*this, w.extent(0), w.extent(1));
  fill({n_, k_, padded_k_, form_, static_cast<char*>(data_.raw())}, w);
}

void PackedWeights::repack_transposed(View2<const float> w) {
  check_again(*this, w.extent(1), w.extent(0));
  fill_transposed({n_, k_, padded_k_, form_, static_cast<char*>(data_.raw())}, w);
}

PackedWeights PackedWeights::pack(View2<const BF16> w) {
  PackedWeights packed(w.extent(0), w.extent(1), WeightForm::Bf16);
  auto* data = static_cast<std::uint32_t*>(packed.data_.raw());
  const Index n = packed.n_, k = packed.k_, pairs = packed.padded_k_ / 2;
  for_panels(n, k, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      for (Index i = 0; i < kPanel; ++i) {
        const Index row = p * kPanel + i;
        const BF16* from = w.data() + std::min(row, n - 1) * w.stride(0);
        std::uint32_t* to = data + p * pairs * kPanel + i;
        for (Index pair = 0; pair < pairs; ++pair)
          to[pair * kPanel] = row < n ? pair_at<std::uint32_t>(from, 2 * pair, k) : 0;
      }
  });
  return packed;
}

PackedWeights PackedWeights::pack(View2<const E4M3> codes, View2<const float> scales) {
  PackedWeights packed(codes.extent(0), codes.extent(1), WeightForm::E4m3);
  const Index n = packed.n_, k = packed.k_, pairs = packed.padded_k_ / 2;
  const Index rows = (n + gemm::kScale - 1) / gemm::kScale;
  const Index columns = (k + gemm::kScale - 1) / gemm::kScale;
  if (scales.extent(0) != rows || scales.extent(1) != columns)
    throw ShapeError(
        fmt::format("weights [{}, {}] in form E4M3 came with scales [{}, {}]; "
                    "expected [{}, {}], one for each block of 128x128",
                    n, k, scales.extent(0), scales.extent(1), rows, columns));
  packed.scales_ = Tensor::uninitialized({rows, columns});
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) packed.scales_.v2()(r, c) = scales(r, c);
  auto* data = static_cast<std::uint16_t*>(packed.data_.raw());
  for_panels(n, k, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      for (Index i = 0; i < kPanel; ++i) {
        const Index row = p * kPanel + i;
        const E4M3* from = codes.data() + std::min(row, n - 1) * codes.stride(0);
        std::uint16_t* to = data + p * pairs * kPanel;
        for (Index pair = 0; pair < pairs; ++pair)
          to[pair / 2 * 32 + gemm::code_position(pair % 2, i)] =
              row < n ? pair_at<std::uint16_t>(from, 2 * pair, k) : 0;
      }
  });
  return packed;
}

PackedWeights PackedWeights::pack_transposed(View2<const E4M3> codes, View2<const float> scales) {
  Tensor turned = Tensor::uninitialized<E4M3>({codes.extent(1), codes.extent(0)});
  Tensor turned_scales = Tensor::uninitialized({scales.extent(1), scales.extent(0)});
  const View2<E4M3> to = turned.view<E4M3, 2>();
  // By columns of the result's blocks, so that a block's lines stay in cache.
  for_panels(codes.extent(1), codes.extent(0), [&](Index first, Index last) {
    const Index end = std::min(last * kPanel, codes.extent(1));
    for (Index r = 0; r < codes.extent(0); ++r)
      for (Index c = first * kPanel; c < end; ++c)
        to.data()[c * to.stride(0) + r] = codes.data()[r * codes.stride(0) + c];
  });
  for (Index r = 0; r < scales.extent(0); ++r)
    for (Index c = 0; c < scales.extent(1); ++c) turned_scales.v2()(c, r) = scales(r, c);
  return pack(View2<const E4M3>(to), View2<const float>(turned_scales.v2()));
}

}  // namespace minke

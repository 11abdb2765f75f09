// Weights into panels of 16 outputs, in parallel over groups of panels, by threads near the memory.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "ops/gemm.h"
#include "ops/int4_kernels.h"
#include "ops/panel_homes.h"
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

Index panels_of(Index n) {
  return (n + kPanel - 1) / kPanel;
}

Index bytes_of_panel(const PackedShape& s) {
  if (s.form == WeightForm::Int4)
    return int4::PanelLayout{block_count(s.k, s.group), s.group}.bytes();
  const Index of_element = s.form == WeightForm::F32 ? 4 : s.form == WeightForm::Bf16 ? 2 : 1;
  return kPanel * round_up(s.k, gemm::kStep) * of_element;
}

// body(first, last) over the panels of [n, k].
void for_panels(Index n, Index k, FunctionRef<void(Index, Index)> body) {
  if (n * k < kWorthThreads)
    body(0, panels_of(n));
  else
    for_panels_at_home(n, kPanelsOfTask, body);
}

// Where a panel goes, from first_k on.
void* panel_at(PackedWeights& to, Index p, Index first_k) {
  const Index bytes = to.form() == WeightForm::F32 ? 4 : 2;
  return static_cast<char*>(to.panel(p)) + first_k * kPanel * bytes;
}

int lanes_of(const PackedWeights& to) {
  return static_cast<int>(to.form() == WeightForm::F32 ? gemm::Lanes::F32 : gemm::Lanes::Pairs);
}

void fill(PackedWeights& to, View2<const float> w) {
  const auto lay_out = gemm::kernels().panel[lanes_of(to)];
  for_panels(to.n(), to.k(), [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      lay_out({w.data() + p * kPanel * w.stride(0), w.stride(0),
               std::min(kPanel, to.n() - p * kPanel), to.k(), to.padded_k(), panel_at(to, p, 0), 0,
               true});
  });
}

void fill_transposed(PackedWeights& to, View2<const float> w) {
  const auto lay_out = gemm::kernels().panel_transposed[lanes_of(to)];
  for_panels(to.n(), to.k(), [&](Index first, Index last) {
    for (Index k = 0; k < to.padded_k(); k += kTransposedDeep)
      for (Index p = first; p < last; ++p)
        lay_out({w.data() + k * w.stride(0) + p * kPanel, w.stride(0),
                 std::min(kPanel, to.n() - p * kPanel), std::min(kTransposedDeep, to.k() - k),
                 std::min(kTransposedDeep, to.padded_k() - k), panel_at(to, p, k), 0, true});
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

PackedWeights::PackedWeights(const PackedShape& s)
    : n_(s.n),
      k_(s.k),
      padded_k_(round_up(s.k, s.form == WeightForm::Int4 ? s.group : gemm::kStep)),
      group_(s.group),
      form_(s.form),
      panel_bytes_(bytes_of_panel(s)),
      homes_(parts(s.n, 1)) {}

PackedWeights::PackedWeights(const PackedShape& s, Index home) : PackedWeights(s) {
  if (n_ <= 0 || k_ <= 0)
    throw ShapeError(fmt::format("weights [{}, {}] have no elements to be packed", n_, k_));
  const bool shared = home == kAllHomes;
  if (shared) homes_.parts = n_homes();
  for (Index part = 0; part < homes_.parts; ++part) {
    const Index first = homes_.begin(part) * kTogether, last = homes_.end(part) * kTogether;
    const Index panels = std::min(last, panels_of(n_)) - std::min(first, panels_of(n_));
    parts_.push_back(Tensor::for_weights(DType::U8, {panels * panel_bytes_},
                                         n_homes() == 1 ? kNoHome
                                         : shared       ? part
                                                        : home));
  }
}

std::size_t PackedWeights::stored_bytes(const PackedShape& s) {
  auto bytes = static_cast<std::size_t>(panels_of(s.n) * bytes_of_panel(s));
  if (s.form == WeightForm::E4m3)
    bytes +=
        static_cast<std::size_t>(block_count(s.n, gemm::kScale) * block_count(s.k, gemm::kScale)) *
        sizeof(float);
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

void PackedWeights::store(std::span<std::byte> to) const {
  MINKE_ASSERT(to.size() == stored_bytes(shape()));
  std::byte* end = to.data();
  for (const Tensor& part : parts_) {
    std::memcpy(end, part.raw(), part.bytes());
    end += part.bytes();
  }
  if (scales_.defined()) {
    std::memcpy(end, scales_.raw(), scales_.bytes());
    end += scales_.bytes();
  }
  std::fill(end, to.data() + to.size(), std::byte{0});
}

PackedWeights PackedWeights::stored(const PackedShape& s, std::span<const std::byte> from) {
  MINKE_ASSERT(from.size() == stored_bytes(s));
  PackedWeights w(s);
  const Index bytes = panels_of(s.n) * w.panel_bytes_;
  w.parts_.push_back(Tensor::borrowed(DType::U8, {bytes}, from.data()));
  if (s.form == WeightForm::E4m3)
    w.scales_ = Tensor::borrowed(DType::F32,
                                 {block_count(s.n, gemm::kScale), block_count(s.k, gemm::kScale)},
                                 from.data() + bytes);
  return w;
}

std::size_t PackedWeights::bytes() const {
  std::size_t bytes = scales_.defined() ? scales_.bytes() : 0;
  for (const Tensor& part : parts_) bytes += part.bytes();
  return bytes;
}

PackedWeights PackedWeights::pack(View2<const float> w, WeightForm form, Index home) {
  check_form(form);
  PackedWeights packed({w.extent(0), w.extent(1), form}, home);
  packed.repack(w);
  return packed;
}

PackedWeights PackedWeights::pack_transposed(View2<const float> w, WeightForm form, Index home) {
  check_form(form);
  PackedWeights packed({w.extent(1), w.extent(0), form}, home);
  packed.repack_transposed(w);
  return packed;
}

void PackedWeights::repack(View2<const float> w) {
  check_again(*this, w.extent(0), w.extent(1));
  fill(*this, w);
}

void PackedWeights::repack_transposed(View2<const float> w) {
  check_again(*this, w.extent(1), w.extent(0));
  fill_transposed(*this, w);
}

PackedWeights PackedWeights::pack(View2<const BF16> w) {
  PackedWeights packed({w.extent(0), w.extent(1), WeightForm::Bf16}, kAllHomes);
  const Index n = packed.n_, k = packed.k_, pairs = packed.padded_k_ / 2;
  for_panels(n, k, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      for (Index i = 0; i < kPanel; ++i) {
        const Index row = p * kPanel + i;
        const BF16* from = w.data() + std::min(row, n - 1) * w.stride(0);
        std::uint32_t* to = static_cast<std::uint32_t*>(packed.panel(p)) + i;
        for (Index pair = 0; pair < pairs; ++pair)
          to[pair * kPanel] = row < n ? pair_at<std::uint32_t>(from, 2 * pair, k) : 0;
      }
  });
  return packed;
}

PackedWeights PackedWeights::pack(View2<const E4M3> codes, View2<const float> scales) {
  PackedWeights packed({codes.extent(0), codes.extent(1), WeightForm::E4m3}, kAllHomes);
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
  for_panels(n, k, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p)
      for (Index i = 0; i < kPanel; ++i) {
        const Index row = p * kPanel + i;
        const E4M3* from = codes.data() + std::min(row, n - 1) * codes.stride(0);
        auto* to = static_cast<std::uint16_t*>(packed.panel(p));
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

#include "ops/int4_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "ops/int4_kernels.h"
#include "ops/panel_homes.h"
#include "tensor/int4_groups.h"

namespace minke {
namespace {

using int4::kPanel;
using int4::kStep;

constexpr Index kPanelsOfTask = 4;

// The code of output n, number k, where there is one; 8, which is zero, elsewhere.
unsigned code_at(View2<const std::int32_t> packed, Index n, Index k, Index K) {
  if (n >= packed.extent(0) || k >= K) return 8;
  const auto word = static_cast<std::uint32_t>(packed(n, k / kInt4PerWord));
  return word >> (4 * (k % kInt4PerWord)) & 15u;
}

}  // namespace

PackedWeights PackedWeights::pack_int4(View2<const std::int32_t> packed, View2<const BF16> scales,
                                       Index k, Index group) {
  check_int4_group(group);
  const Index n = packed.extent(0), groups = (k + group - 1) / group;
  if (packed.extent(1) != (k + kInt4PerWord - 1) / kInt4PerWord || scales.extent(0) != n ||
      scales.extent(1) != groups)
    throw ShapeError(
        fmt::format("4-bit codes [{}, {}] with scales [{}, {}]; [{}, {}] in groups of {} has codes "
                    "[{}, {}] and scales [{}, {}]",
                    packed.extent(0), packed.extent(1), scales.extent(0), scales.extent(1), n, k,
                    group, n, (k + kInt4PerWord - 1) / kInt4PerWord, n, groups));
  const int4::PanelLayout layout{groups, group};
  PackedWeights w({n, k, WeightForm::Int4, group}, kAllHomes);
  for_panels_at_home(n, kPanelsOfTask, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      auto* to = static_cast<std::uint8_t*>(w.panel(p));
      for (Index step = 0; step < w.padded_k_ / kStep; ++step)
        for (Index i = 0; i < 64; ++i) {
          const Index row = p * kPanel + i / 4, column = step * kStep + i % 4;
          to[step * 64 + i] = static_cast<std::uint8_t>(code_at(packed, row, column, k) |
                                                        code_at(packed, row, column + 4, k) << 4);
        }
      to += layout.codes_bytes();
      std::memset(to, 0, static_cast<std::size_t>(layout.scales_bytes()));
      for (Index g = 0; g < groups; ++g)
        for (Index i = 0; i < std::min(kPanel, n - p * kPanel); ++i)
          std::memcpy(to + (g * kPanel + i) * 2, &scales(p * kPanel + i, g), 2);
    }
  });
  return w;
}

namespace int4 {
namespace {

constexpr Index kRowsOfTask = 256;
constexpr double kWorthThreads = 4e6;  // multiply-adds, or 8 bytes of weights

// x in codes of 8 bits.
struct Quantized {
  Tensor codes, scales, sums;

  Quantized(View2<const float> x, const PanelLayout& layout)
      : codes(Tensor::uninitialized(DType::I8, {x.extent(0), layout.groups * layout.group})),
        scales(Tensor::uninitialized({x.extent(0), layout.groups})),
        sums(Tensor::uninitialized(DType::I32, {x.extent(0), layout.groups})) {
    const Index T = x.extent(0), K = x.extent(1);
    const auto rows = [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        auto* to = static_cast<std::int8_t*>(codes.raw()) + t * layout.groups * layout.group;
        for (Index g = 0; g < layout.groups; ++g) {
          const Index k = g * layout.group;
          scales.v2()(t, g) =
              kernels().quantize(x.data() + t * x.stride(0) + k, std::min(layout.group, K - k),
                                 layout.group, to + k, &sums.view<std::int32_t, 2>()(t, g));
        }
      }
    };
    constexpr Index kFew = 16;
    if (T <= kFew)
      rows(0, T);
    else
      parallel_ranges(T, kFew, rows);
  }
  Rows from(Index row) const {
    const Index width = codes.extent(1), groups = scales.extent(1);
    return {static_cast<const std::int8_t*>(codes.raw()) + row * width,
            static_cast<const float*>(scales.raw()) + row * groups,
            static_cast<const std::int32_t*>(sums.raw()) + row * groups};
  }
};

struct Task {
  const gemm::Product* product;
  const Quantized* x;
  Index row, rows, column, columns;
};

PanelLayout layout_of(const PackedWeights& w) {
  return {w.padded_k() / w.group(), w.group()};
}

void run(const Task& t) {
  const PackedWeights* w = t.product->w;
  const View2<float> y = t.product->y;
  const PanelLayout layout = layout_of(*w);
  constexpr Index kColumns = kPanelsAtOnce * kPanel;
  for (Index c = t.column; c < t.column + t.columns; c += kColumns)
    kernels().multiply(
        {t.x->from(t.row), t.rows, static_cast<const std::uint8_t*>(w->panel(c / kPanel)), layout,
         std::min(kColumns, t.column + t.columns - c), y.data() + t.row * y.stride(0) + c,
         y.stride(0), t.product->write == Write::Add});
}

// The tasks of a product on some of the panels, those cut into about `ranges`.
void add_tasks(const gemm::Product& product, const Quantized& x, const PanelRange& panels,
               Index ranges, BlockVector<Task>& to) {
  const Index T = product.x.extent(0), end = std::min(product.w->n(), panels.last * kPanel);
  const Index blocks = (panels.last - panels.first + kPanelsAtOnce - 1) / kPanelsAtOnce;
  if (blocks == 0) return;
  const Index columns =
      (blocks + std::min(ranges, blocks) - 1) / std::min(ranges, blocks) * kPanelsAtOnce * kPanel;
  for (Index row = 0; row < T; row += kRowsOfTask)
    for (Index c = panels.first * kPanel; c < end; c += columns)
      to.push_back(
          {&product, &x, row, std::min(kRowsOfTask, T - row), c, std::min(columns, end - c)});
}

}  // namespace

void multiply(std::span<const gemm::Product> products) {
  BlockVector<Quantized> quantized;
  quantized.reserve(products.size());
  double work = 0;
  Index row_blocks = 0;
  for (const gemm::Product& product : products) {
    const Index rows = product.x.extent(0);
    row_blocks += (rows + kRowsOfTask - 1) / kRowsOfTask;
    work += static_cast<double>(std::max<Index>(rows, 8)) * product.w->n() * product.w->k();
    quantized.emplace_back(product.x, layout_of(*product.w));
  }
  // About four pieces a thread.
  const Index pieces = n_homes() * std::max<Index>(1, row_blocks);
  const Index ranges = (4 * n_threads() + pieces - 1) / pieces;
  HomedTasks<Task> tasks;
  for (Index home = 0; home < n_homes(); ++home) {
    for (std::size_t i = 0; i < products.size(); ++i)
      add_tasks(products[i], quantized[i], panels_at(products[i].w->n(), home), ranges,
                tasks.tasks);
    tasks.end_home();
  }
  tasks.run(work >= kWorthThreads, [&](const Task& task) { run(task); });
}

}  // namespace int4
}  // namespace minke

#include "ops/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>

#include "base/log.h"
#include "base/threads.h"
#include "ops/gemm_tiles.h"
#include "ops/panel_homes.h"
#include "ops/quantize.h"

namespace minke::gemm {
namespace {

constexpr Index kRows = 192;     // of x in one task: with kDeep of k they stay in L2
constexpr Index kDeepF32 = 512;  // of k in one stretch
constexpr Index kDeepBf16 = 1024;
constexpr Index kFewRows = 16;  // up to here panels are read whole: memory likes long streams
static_assert(kFewRows <= kTileRows);  // more come in stretches of kDeepE4m3 at most
constexpr Index kGradientRows = 256, kGradientColumns = 512, kGradientDeep = 256;
constexpr double kWorthThreads = 4e6;  // multiply-adds, or 16 bytes of weights: about 20 us

Index round_up(Index n, Index step) {
  return (n + step - 1) / step * step;
}
Index ceil_div(Index n, Index d) {
  return (n + d - 1) / d;
}

// Memory of one thread, kept between calls.
class Scratch {
 public:
  template <class T>
  T* get(Index n) {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
    if (bytes > bytes_) {
      bytes_ = (bytes + 4095) / 4096 * 4096;
      memory_.reset(std::aligned_alloc(4096, bytes_));
      if (!memory_) {
        bytes_ = 0;
        throw std::bad_alloc();
      }
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_ = 0;
};
thread_local Scratch x_scratch, w_scratch, sum_scratch;

// 64 bytes more than the row needs: rows then do not meet in the same set of the cache.
Index padded_stride(Index lanes) {
  return lanes + 16;
}

void run_tasks(Index n, double multiply_adds, FunctionRef<void(Index)> task) {
  if (multiply_adds < kWorthThreads)
    for (Index i = 0; i < n; ++i) task(i);
  else
    parallel_for(n, task);
}

// x in E4M3, by inference's rule.
Fp8Rows quantized(View2<const float> x) {
  Fp8Rows rows{Tensor::uninitialized(DType::F8_E4M3, {x.extent(0), x.extent(1)}),
               Tensor::uninitialized({x.extent(0), ceil_div(x.extent(1), kScale)})};
  quantize_rows(x, rows.codes.view<E4M3, 2>(), rows.scales.v2());
  return rows;
}

// A tile of a product and of those joined to it, with the codes of their x (or empty views).
struct Task {
  std::size_t first, last;  // the last one not included
  Tile tile;
};

Index bytes_of_k(WeightForm form) {  // in one panel
  return kPanel * (form == WeightForm::F32 ? 4 : form == WeightForm::Bf16 ? 2 : 1);
}

// Panels of codes from `column` on, all under the same scales, [k, k + deep) of them, as BF16 of
// deep * kPanel each.
const std::uint16_t* widened(const PackedWeights& w, Index column, Index columns, Index k,
                             Index deep, bool scaled) {
  std::uint16_t* to = w_scratch.get<std::uint16_t>(kGroup * kPanel * deep);
  const auto* codes = static_cast<const std::uint8_t*>(w.panel(column / kPanel));
  for (Index i = 0; i < deep; i += kScale) {
    const float scale = scaled ? w.scales()(column / kScale, (k + i) / kScale) : 1.0f;
    kernels().widen({codes + (k + i) * kPanel, w.panel_bytes(), ceil_div(columns, kPanel),
                     std::min(kScale, deep - i), scale, to + i * kPanel, deep * kPanel});
  }
  return to;
}

// One stretch of K of a group of panels, x already laid out.
void multiply_group(const PackedWeights& w, Index column, Index k, Block block, bool scaled) {
  const Kernels& kernel = kernels();
  block.w = static_cast<const char*>(w.panel(column / kPanel)) + k * bytes_of_k(w.form());
  block.panel_bytes = w.panel_bytes();
  if (w.form() == WeightForm::F32) return kernel.multiply_f32(block);
  if (w.form() == WeightForm::Bf16) return kernel.multiply_bf16(block);
  if (block.rows <= kernel.e4m3_rows) {
    static constexpr float kOne[1] = {1.0f};
    MINKE_ASSERT(scaled || block.k <= kScale);
    block.scales = scaled ? &w.scales()(column / kScale, k / kScale) : kOne;
    return kernel.multiply_e4m3(block);
  }
  block.w = widened(w, column, block.columns, k, block.k, scaled);
  block.panel_bytes = block.k * kPanel * 2;
  kernel.multiply_bf16(block);
}

Lanes lanes_for(WeightForm form) {
  return form == WeightForm::F32 ? Lanes::F32 : kernels().bf16_lanes;
}

Index deep_for(const PackedWeights& w, Index rows) {
  if (rows <= kFewRows) return w.padded_k();
  if (w.form() == WeightForm::F32) return kDeepF32;
  return w.form() == WeightForm::Bf16 ? kDeepBf16 : kDeepE4m3;
}

// Panels of the blocks of a product: tasks begin at multiples of them, all their rows alike.
Index group_of(const Product& p) {
  const bool wide = p.w->form() != WeightForm::F32 && p.y.extent(0) <= kWideRows;
  return wide ? kernels().wide_group : kGroup;
}

// Rows of the task, [k, k + stretch) of them, as lanes.
void lay_out_x(const Product& p, const Fp8View& all_codes, const Tile& t, Lanes lanes, Index k,
               Index n, Index stretch, float* to, Index stride) {
  const auto rows = kernels().rows[static_cast<int>(lanes)];
  if (const View2<const BF16> x = p.narrow_x; !x.empty()) {
    Layout layout{nullptr, x.stride(0), t.rows, n, stretch, to, stride};
    layout.narrow = x.data() + t.row * x.stride(0) + k;
    return rows(layout);
  }
  if (all_codes.codes.empty()) {
    const View2<const float> x = p.x;
    return rows({x.data() + t.row * x.stride(0) + k, x.stride(0), t.rows, n, stretch, to, stride});
  }
  const auto& [codes, scales] = all_codes;
  kernels().code_rows[static_cast<int>(lanes)](
      {reinterpret_cast<const std::uint8_t*>(codes.data()) + t.row * codes.stride(0) + k,
       codes.stride(0), t.rows, n, stretch, to, stride,
       scales.data() + t.row * scales.stride(0) + k / kScale, scales.stride(0)});
}

// Rows of x as lanes.
struct RowsOfLanes {
  const void* lanes;
  Index stride;  // lanes from one row to the next
};

// Numbers in BF16 are pairs where they lie, but for what a row lacks to a whole step of k or where
// rows begin in the middle of a lane.
std::optional<RowsOfLanes> lanes_in_place(const Product& p, const Tile& t, Lanes lanes, Index k) {
  const View2<const BF16> x = p.narrow_x;
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.data()) % 4 == 0 && x.stride(0) % 2 == 0;
  if (x.empty() || lanes != Lanes::Pairs || x.extent(1) % kStep || !aligned) return {};
  return RowsOfLanes{x.data() + t.row * x.stride(0) + k, x.stride(0) / 2};
}

// What a tile reads after [k, k + deep) of the columns [column, column + columns).
NextLines lines_after(const PackedWeights& w, const Tile& t, Index column, Index columns,
                      Index most, Index k, Index deep) {
  const bool end_of_row = column + columns == t.column + t.columns;
  const Index next_column = end_of_row ? t.column : column + columns;
  const Index next_k = end_of_row ? k + deep : k;
  if (next_k >= w.padded_k()) return {};
  const Index left = t.column + t.columns - next_column, bytes = bytes_of_k(w.form());
  return {static_cast<const char*>(w.panel(next_column / kPanel)) + next_k * bytes,
          std::min(deep, w.padded_k() - next_k) * bytes, ceil_div(std::min(most, left), kPanel),
          w.panel_bytes()};
}

void run(const Product& p, const Fp8View& codes, const Tile& t) {
  const PackedWeights& w = *p.w;
  const View2<float> y = p.y;
  const Lanes lanes = lanes_for(w.form());
  // A few rows of codes that are widened first: only as many as stay in cache.
  const bool widens = w.form() == WeightForm::E4m3 && t.rows > kernels().e4m3_rows;
  const Index deep = std::min(widens ? kDeepE4m3 : deep_for(w, t.rows), w.padded_k());
  const Index stride = padded_stride(lanes_of(lanes, deep));
  const Index most = group_of(p) * kPanel;
  float* lanes_of_x = x_scratch.get<float>(t.rows * stride);
  for (Index k = 0; k < w.padded_k(); k += deep) {
    const Index stretch = std::min(deep, w.padded_k() - k);
    std::optional<RowsOfLanes> x = lanes_in_place(p, t, lanes, k);
    if (!x) {
      lay_out_x(p, codes, t, lanes, k, std::min(stretch, w.k() - k), stretch, lanes_of_x, stride);
      x = {lanes_of_x, stride};
    }
    for (Index c = t.column; c < t.column + t.columns; c += most) {
      const Index columns = std::min(most, t.column + t.columns - c);
      multiply_group(w, c, k,
                     {x->lanes, x->stride, t.rows, nullptr, 0, columns, stretch, nullptr,
                      y.data() + t.row * y.stride(0) + c, y.stride(0),
                      k > 0 || p.write == Write::Add, lines_after(w, t, c, columns, most, k, deep)},
                     true);
    }
  }
}

// Sums of codes over kScale of K, times the scales of the row and of the block of weights.
void run_fp8(const Product& p, const Fp8View& x, const Tile& t) {
  const PackedWeights& w = *p.w;
  const View2<float> y = p.y;
  const Index stride = padded_stride(kScale), most = kGroup * kPanel;
  float* lanes_of_x = x_scratch.get<float>(t.rows * stride);
  float* sums = sum_scratch.get<float>(t.rows * most);
  const auto& [codes, scales] = x;
  const auto* first = reinterpret_cast<const std::uint8_t*>(codes.data()) + t.row * codes.stride(0);
  for (Index k = 0; k < w.padded_k(); k += kScale) {
    const Index stretch = std::min(kScale, w.padded_k() - k);
    kernels().code_rows[static_cast<int>(kernels().bf16_lanes)]({first + k, codes.stride(0), t.rows,
                                                                 std::min(stretch, w.k() - k),
                                                                 stretch, lanes_of_x, stride});
    const float* row_scales = &scales(t.row, k / kScale);
    for (Index c = t.column; c < t.column + t.columns; c += most) {
      const Index columns = std::min(most, t.column + t.columns - c);
      multiply_group(w, c, k,
                     {lanes_of_x, stride, t.rows, nullptr, 0, columns, stretch, nullptr, sums, most,
                      false, lines_after(w, t, c, columns, most, k, kScale)},
                     false);
      kernels().add_scaled(
          sums, most, row_scales, scales.stride(0), w.scales()(c / kScale, k / kScale), t.rows,
          columns, y.data() + t.row * y.stride(0) + c, y.stride(0), k > 0 || p.write == Write::Add);
    }
  }
}

// The tasks of products [first, last) on some of the panels. Rows and groups of panels are shared
// out evenly; laying x out again for every range of columns is kept below a few percent.
void add_tasks(const Product& p, std::size_t first, std::size_t last, const PanelRange& panels,
               Index pieces, BlockVector<Task>& to) {
  const Index T = p.y.extent(0), end = std::min(p.w->n(), panels.last * kPanel);
  if (T == 0 || panels.first == panels.last) return;
  const Index group = group_of(p), least = T > kFewRows ? 4 : 1;
  const Index groups = ceil_div(panels.last - panels.first, group);
  const Index ranges = std::clamp<Index>(pieces, 1, ceil_div(groups, least));
  const Index columns = ceil_div(groups, ranges) * group * kPanel;
  const Index rows = round_up(ceil_div(T, ceil_div(T, kRows)), kRows / 2);
  for (Index row = 0; row < T; row += rows)
    for (Index c = panels.first * kPanel; c < end; c += columns)
      to.push_back({first, last, {row, std::min(rows, T - row), c, std::min(columns, end - c)}});
}

}  // namespace

// The tile unit has to show on a small product that it does what the vectors do.
bool tiles_agree() {
  static const bool agree = [] {
    if (!cpu_features().amx) return false;
    const Kernels below = with_avx512_bf16(with_avx512(kScalar));
    if (agree_on_pairs(with_amx(below), below)) return true;
    log_warning(
        "this processor's tile unit (AMX) gave another product than its vectors; AVX-512 is used "
        "instead");
    return false;
  }();
  return agree;
}

const Kernels& kernels() {
  static const CpuFeatures& cpu = cpu_features();
  static const Kernels avx2 = cpu.avx2 ? with_avx2(kScalar) : kScalar;
  static const Kernels avx512 = !cpu.avx512       ? avx2
                                : cpu.avx512_bf16 ? with_avx512_bf16(with_avx512(avx2))
                                                  : with_avx512(avx2);
  static const Kernels amx = tiles_agree() ? with_amx(avx512) : avx512;
  static const FormTable<Kernels> table{&kScalar, &avx2, &avx512, &amx};
  return table.chosen();
}

namespace {

[[maybe_unused]] bool are_joined(const Product& a, const Product& b) {
  return a.y.extent(0) == b.y.extent(0) && a.y.extent(1) == b.y.extent(1) &&
         a.w->form() == b.w->form();
}

// Of every x that the arithmetic wants as codes; once where joined products have the same x.
void quantize_inputs(std::span<const Product> products, BlockVector<Fp8Rows>& made,
                     BlockVector<Fp8View>& codes) {
  made.reserve(products.size());
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    if (!p.x_codes.codes.empty() || p.y.extent(0) == 0)
      codes.push_back(p.x_codes);
    else if (p.joined && p.x.data() == products[i - 1].x.data())
      codes.push_back(codes.back());
    else
      codes.push_back(made.emplace_back(quantized(p.x)).view());
  }
}

}  // namespace

void multiply(std::span<const Product> products, Arithmetic arithmetic, Finish finish) {
  Index row_blocks = 0;
  double work = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    const Index T = p.y.extent(0);
    MINKE_ASSERT(!p.joined || (i > 0 && are_joined(products[i - 1], p)));
    if (!p.joined) row_blocks += ceil_div(T, kRows);
    work += static_cast<double>(std::max<Index>(T, 16)) * p.w->n() * p.w->k();
  }
  const Index pieces = ceil_div(4 * n_threads(), n_homes() * std::max<Index>(1, row_blocks));
  BlockVector<Fp8Rows> made;
  BlockVector<Fp8View> codes;
  codes.reserve(products.size());
  if (arithmetic == Arithmetic::Fp8)
    quantize_inputs(products, made, codes);
  else
    for (const Product& p : products) codes.push_back(p.x_codes);
  HomedTasks<Task> tasks;
  for (Index home = 0; home < n_homes(); ++home) {
    for (std::size_t first = 0, last; first < products.size(); first = last) {
      for (last = first + 1; last < products.size() && products[last].joined;) ++last;
      const Product& p = products[first];
      add_tasks(p, first, last, panels_at(p.w->n(), home), pieces, tasks.tasks);
    }
    tasks.end_home();
  }
  tasks.run(work >= kWorthThreads, [&](const Task& task) {
    for (std::size_t i = task.first; i < task.last; ++i)
      arithmetic == Arithmetic::Fp8 ? run_fp8(products[i], codes[i], task.tile)
                                    : run(products[i], codes[i], task.tile);
    finish(task.first, task.tile);
  });
}

void multiply(std::span<const Product> products, Arithmetic arithmetic) {
  multiply(products, arithmetic, [](std::size_t, const Tile&) {});
}

namespace {

struct GradientTask {
  const Gradient* gradient;
  Index row, rows, column, columns;  // of dw
};

// Where the sums of a stretch go: into dw, or beside it to be scaled.
void finish_block(const GradientTask& t, Index tile, Index column, Block block, Lanes lanes) {
  const Gradient& g = *t.gradient;
  const bool scaled = !g.dy_scales.empty();
  float* const dw = block.y;
  if (scaled) {
    block.y = sum_scratch.get<float>(t.rows * kGroup * kPanel);
    block.y_stride = kGroup * kPanel;
    block.add = false;
  }
  if (lanes == Lanes::F32)
    kernels().multiply_f32(block);
  else
    kernels().multiply_bf16(block);
  if (scaled)
    kernels().add_outer_scaled(block.y, block.y_stride, &g.dy_scales(tile, t.row),
                               &g.x_scales(tile, t.column + column), t.rows, block.columns, dw,
                               g.dw.stride(0));
}

// Columns [column, column + n) of tokens [first, first + k), to be laid out transposed.
Layout columns_of(View2<const float> x, View2<const BF16> narrow, Index first, Index k,
                  Index padded_k, Index column, Index n, float* to, Index to_stride) {
  Layout layout{nullptr, 0, n, k, padded_k, to, to_stride};
  if (narrow.empty()) {
    layout.from = x.data() + first * x.stride(0) + column;
    layout.stride = x.stride(0);
  } else {
    layout.narrow = narrow.data() + first * narrow.stride(0) + column;
    layout.stride = narrow.stride(0);
  }
  return layout;
}

Index tokens_of(const Gradient& g) {
  return g.narrow_x.empty() ? g.x.extent(0) : g.narrow_x.extent(0);
}

// dw [rows, columns] += dy^T x: stretches of T are laid out in cache, dy^T as rows, x as panels.
void run(const GradientTask& t, Lanes lanes, Lanes panel_lanes) {
  const Gradient& g = *t.gradient;
  const Index T = tokens_of(g);
  const Index deep = std::min(g.dy_scales.empty() ? kGradientDeep : kScale, round_up(T, kStep));
  const Index stride = padded_stride(lanes_of(lanes, deep));
  const Index panel_size = lanes_of(panel_lanes, deep) * kPanel;
  float* rows = x_scratch.get<float>(t.rows * stride);
  float* panels = w_scratch.get<float>(ceil_div(t.columns, kPanel) * panel_size);
  for (Index first = 0; first < T; first += deep) {
    const Index n = std::min(deep, T - first), stretch = round_up(n, kStep);
    kernels().rows_transposed[static_cast<int>(lanes)](
        columns_of(g.dy, g.narrow_dy, first, n, stretch, t.row, t.rows, rows, stride));
    for (Index k = 0; k < stretch; k += kStep)
      for (Index c = 0; c < t.columns; c += kPanel)
        kernels().panel_transposed[static_cast<int>(panel_lanes)](
            columns_of(g.x, g.narrow_x, first + k, std::min(kStep, n - k), kStep, t.column + c,
                       std::min(kPanel, t.columns - c),
                       panels + c / kPanel * panel_size + lanes_of(panel_lanes, k) * kPanel, 0));
    for (Index c = 0; c < t.columns; c += kGroup * kPanel) {
      const Block block{rows,
                        stride,
                        t.rows,
                        panels + c / kPanel * panel_size,
                        panel_size * 4,
                        std::min(kGroup * kPanel, t.columns - c),
                        stretch,
                        nullptr,
                        g.dw.data() + t.row * g.dw.stride(0) + t.column + c,
                        g.dw.stride(0),
                        true};
      finish_block(t, first / kScale, c, block, panel_lanes);
    }
  }
}

}  // namespace

void multiply_gradients(std::span<const Gradient> gradients, Precision precision) {
  const bool bf16 = precision == Precision::Bf16;
  const Lanes lanes = bf16 ? kernels().bf16_lanes : Lanes::F32;
  const Lanes panel_lanes = bf16 ? Lanes::Pairs : Lanes::F32;
  double work = 0;
  Index blocks = 0;
  for (const Gradient& g : gradients) {
    work += static_cast<double>(tokens_of(g)) * g.dw.size();
    if (tokens_of(g) > 0)
      blocks +=
          ceil_div(g.dw.extent(0), kGradientRows) * ceil_div(g.dw.extent(1), kGradientColumns);
  }
  // A lone small matrix is cut finer, so that every thread has a part.
  const Index cut = blocks < 2 * n_threads() ? 2 : 1;
  BlockVector<GradientTask> tasks;
  for (const Gradient& g : gradients) {
    if (tokens_of(g) == 0) continue;
    const Index N = g.dw.extent(0), K = g.dw.extent(1);
    const Index rows = round_up(std::min(kGradientRows, ceil_div(N, cut)), kStep);
    for (Index row = 0; row < N; row += rows)
      for (Index c = 0; c < K; c += kGradientColumns)
        tasks.push_back({&g, row, std::min(rows, N - row), c, std::min(kGradientColumns, K - c)});
  }
  run_tasks(static_cast<Index>(tasks.size()), work,
            [&](Index i) { run(tasks[i], lanes, panel_lanes); });
}

}  // namespace minke::gemm

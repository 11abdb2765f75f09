#include "bench/attention.h"

#include <fmt/format.h>

#include <cmath>

#include "base/random.h"
#include "bench/models.h"
#include "ops/limits.h"

namespace minke::bench {
namespace {

Tensor normal(Index rows, Index columns) {
  Tensor t = Tensor::uninitialized({rows, columns});
  parallel_ranges(t.size(), 1 << 16, [&](Index first, Index last) {
    Random random(5, static_cast<std::uint64_t>(first));
    for (Index i = first; i < last; ++i) t.flat()(i) = static_cast<float>(random.normal());
  });
  return t;
}

class Measurements {
 public:
  explicit Measurements(const AttentionBench& bench)
      : bench_(bench), memory_(std::max<Index>(4, 256 / bench.smaller) << 20) {}

  // Causal: each of `sequences` has T (T + 1) / 2 pairs. Scores and values are two products of a
  // pair; the backward has three of the width of keys (scores again, dq, dk) and two of values'.
  void expanded(const char* model, Index sequences, Index T) {
    T = std::max<Index>(1, T / bench_.smaller);
    const AttentionShape s = benchmark_model(model).expanded_attention();
    const Index rows = sequences * T;
    const double scale = 1 / std::sqrt(static_cast<double>(s.qk));
    const Tensor q = normal(rows, s.n_heads * s.qk), k = normal(rows, s.n_heads * s.qk),
                 v = normal(rows, s.n_heads * s.value), dout = normal(rows, s.n_heads * s.value);
    Tensor out = Tensor::zeros(v.shape()), lse = Tensor::zeros({rows, s.n_heads});
    Tensor dq = Tensor::zeros(q.shape()), dk = Tensor::zeros(q.shape()),
           dv = Tensor::zeros(v.shape());
    const double pairs = static_cast<double>(sequences * s.n_heads) * static_cast<double>(T) *
                         static_cast<double>(T + 1) / 2;
    Result r;
    r.name = fmt::format("attention {}", model);
    r.shape = fmt::format("{} x {}, H {}", sequences, T, s.n_heads);
    r.form = "fp32";
    r.flop = 2 * pairs * static_cast<double>(s.qk + s.value);
    results_.push_back(measured(
        r, bench_.rounds,
        [&] {
          attention_forward_batch(s, sequences, q.v2(), k.v2(), v.v2(), scale, out.v2(), lse.v2());
        },
        [] { return fp32_flop_per_s(); }));
    const Tensor &o = out, &l = lse;
    r.name = "  backward";
    r.flop = 2 * pairs * static_cast<double>(3 * s.qk + 2 * s.value);
    results_.push_back(measured(
        r, bench_.rounds,
        [&] {
          attention_backward_batch(s, sequences, q.v2(), k.v2(), v.v2(), o.v2(), l.v2(), dout.v2(),
                                   scale, dq.v2(), dk.v2(), dv.v2());
        },
        [] { return fp32_flop_per_s(); }));
  }

  // One token over `context` rows of a BF16 cache; enough caches in turn that each is in memory.
  void absorbed(const char* model, Index context) {
    context = std::max<Index>(1, context / bench_.smaller);
    const ModelConfig c = benchmark_model(model);
    const AttentionShape s = c.absorbed_attention();
    const Index width = c.cache_row(), pages = (context + kKeyTile - 1) / kKeyTile;
    const Index of_cache = pages * kKeyTile * width * 2;
    const Index n = std::max<Index>(1, (Index{64} << 20) / bench_.smaller / of_cache);
    Tensor caches = Tensor::uninitialized(DType::BF16, {n * pages * kKeyTile, width});
    const View2<BF16> all = caches.view<BF16, 2>();
    parallel_ranges(all.extent(0), kKeyTile, [&](Index first, Index last) {
      Random random(6, static_cast<std::uint64_t>(first));
      for (Index t = first; t < last; ++t)
        for (Index i = 0; i < width; ++i) all(t, i) = BF16(static_cast<float>(random.normal()));
    });
    std::vector<const BF16*> page;
    for (Index p = 0; p < n * pages; ++p) page.push_back(&all(p * kKeyTile, 0));
    const Tensor q = normal(1, s.n_heads * s.qk);
    Tensor out = Tensor::zeros({1, s.n_heads * s.value});

    Result r;
    r.name = "attention decode";
    r.shape = fmt::format("{} rows, H {}", context, s.n_heads);
    r.form = "bf16";
    const double calls = static_cast<double>(n), rows = static_cast<double>(context);
    r.bytes = calls * rows * static_cast<double>(width) * 2;
    r.flop = calls * rows * static_cast<double>(2 * s.n_heads * (s.qk + s.value));
    const double scale = 1 / std::sqrt(static_cast<double>(c.qk_head_dim()));
    r = measured_nearer(
        r, bench_.rounds,
        [&] {
          for (Index i = 0; i < n; ++i) {
            const auto keys = KeyRows<BF16>::of(
                std::span<const BF16* const>(page).subspan(static_cast<std::size_t>(i * pages),
                                                           static_cast<std::size_t>(pages)),
                width, context);
            attention_forward(s, q.v2(), keys, keys, context - 1, scale, out.v2());
          }
        },
        [] { return fp32_flop_per_s(); }, [&] { return memory_.read_bytes_per_s(); });
    r.seconds /= calls, r.bytes /= calls, r.flop /= calls;
    results_.push_back(r);
  }

  std::vector<Result> take() { return std::move(results_); }

 private:
  AttentionBench bench_;
  MemoryLimit memory_;
  std::vector<Result> results_;
};

}  // namespace

std::vector<Result> attention_results(const AttentionBench& bench) {
  Measurements m(bench);
  m.expanded("mini", 8, 512);
  m.expanded("moonlight-9l", 1, 512);
  m.expanded("moonlight-9l", 1, 4096);
  m.expanded("v3-slice", 1, 512);
  for (const char* model : {"moonlight-9l", "v3-slice"})  // 16 and 128 heads
    for (const Index context : {4096, 32768}) m.absorbed(model, context);
  return m.take();
}

}  // namespace minke::bench

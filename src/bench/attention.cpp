#include "bench/attention.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "base/random.h"
#include "bench/models.h"
#include "infer/latent_pages.h"
#include "ops/limits.h"
#include "ops/permute.h"

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

double seconds_of(FunctionRef<void()> work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One query token over latent caches of one layer, one after the other: enough of them that their
// rows come from memory.
class DecodeCaches {
 public:
  DecodeCaches(const ModelConfig& c, DType dtype, Index context, Index bytes)
      : shape_(c.absorbed_attention()),
        context_(context),
        n_(std::max<Index>(1,
                           bytes / (context * static_cast<Index>(latent_row(c, dtype).bytes())))),
        scale_(1 / std::sqrt(static_cast<double>(c.qk_head_dim()))),
        pool_({latent_row(c, dtype), 1}, n_ * pages_for(context)),
        q_(normal(1, shape_.n_heads * shape_.qk)),
        out_(Tensor::zeros({1, shape_.n_heads * shape_.value})) {
    const Tensor rows = normal(context, c.cache_row());
    for (Index i = 0; i < n_; ++i) {
      caches_.emplace_back(pool_).reserve(context);
      caches_.back().append(0, rows.v2());
    }
  }

  // All caches.
  void attend() {
    for (const PagedCache& cache : caches_)
      attend_rows(cache, shape_, 0, context_, q_.v2(), context_ - 1, scale_, out_.v2());
  }
  // What that moves and does.
  Result result() const {
    const double rows = static_cast<double>(n_ * context_);
    Result r;
    r.name = "attention decode";
    r.shape = fmt::format("{} rows, H {}", context_, shape_.n_heads);
    r.bytes = rows * static_cast<double>(pool_.layout().row.bytes());
    r.flop = rows * static_cast<double>(2 * shape_.n_heads * (shape_.qk + shape_.value));
    return r;
  }
  // As the work of one cache.
  void add(std::vector<Result>& results, Result r) const {
    const auto n = static_cast<double>(n_);
    r.seconds /= n, r.bytes /= n, r.flop /= n;
    results.push_back(std::move(r));
  }

 private:
  AttentionShape shape_;
  Index context_, n_;
  double scale_;
  PagePool pool_;
  std::vector<PagedCache> caches_;
  Tensor q_, out_;
};

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
    std::vector<Index> offsets;
    for (Index b = 0; b <= sequences; ++b) offsets.push_back(b * T);
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
          attention_forward_batch(s, offsets, q.v2(), k.v2(), v.v2(), scale, out.v2(), lse.v2());
        },
        [] { return fp32_flop_per_s(); }));
    if (sequences == 1) rounded(r, s, q, k, v, out);
    const Tensor &o = out, &l = lse;
    r.form = "fp32";
    r.name = "  backward";
    r.flop = 2 * pairs * static_cast<double>(3 * s.qk + 2 * s.value);
    results_.push_back(measured(
        r, bench_.rounds,
        [&] {
          attention_backward_batch(s, offsets, q.v2(), k.v2(), v.v2(), o.v2(), l.v2(), dout.v2(),
                                   scale, dq.v2(), dk.v2(), dv.v2());
        },
        [] { return fp32_flop_per_s(); }));
  }

  // With keys and values in BF16, the form of a prompt.
  void rounded(Result r, const AttentionShape& s, const Tensor& q, const Tensor& k, const Tensor& v,
               Tensor& out) {
    Tensor narrow_k = Tensor::uninitialized<BF16>(k.shape());
    Tensor narrow_v = Tensor::uninitialized<BF16>(v.shape());
    copy(k.v2(), narrow_k.v2<BF16>());
    copy(v.v2(), narrow_v.v2<BF16>());
    const Tensor &keys = narrow_k, &values = narrow_v;
    r.form = "bf16";
    results_.push_back(measured(
        r, bench_.rounds,
        [&] {
          attention_forward(s, q.v2(), KeyRows<BF16>::of(keys.v2<BF16>()),
                            KeyRows<BF16>::of(values.v2<BF16>()), 0,
                            1 / std::sqrt(static_cast<double>(s.qk)), out.v2());
        },
        [] { return bf16_flop_per_s(); }));
  }

  // One token over `context` rows of the latent cache: in BF16, and in another form against that.
  void absorbed(const char* model, Index context) {
    context = std::max<Index>(1, context / bench_.smaller);
    const ModelConfig c = benchmark_model(model);
    const Index bytes = (Index{64} << 20) / bench_.smaller;
    DecodeCaches bf16(c, DType::BF16, context, bytes);
    Result r = bf16.result();
    r.form = "bf16";
    bf16.add(results_,
             measured_nearer(
                 r, bench_.rounds, [&] { bf16.attend(); }, [] { return fp32_flop_per_s(); },
                 [&] { return memory_.read_bytes_per_s(); }));
    if (bench_.cache == "bf16") return;
    const bool fp8 = bench_.cache != "fp32";
    DecodeCaches other(c, fp8 ? DType::F8_E4M3 : DType::F32, context, bytes);
    r = other.result();
    r.form = fp8 ? "fp8" : "fp32";
    r.note = "limit: rows in bf16";
    other.add(results_,
              measured(
                  r, bench_.rounds, [&] { other.attend(); },
                  [&] { return bf16.result().flop / seconds_of([&] { bf16.attend(); }); }));
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

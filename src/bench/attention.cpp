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

Tensor narrow(const Tensor& x) {
  Tensor y = Tensor::uninitialized<BF16>(x.shape());
  copy(x.v2(), y.v2<BF16>());
  return y;
}

// Of training: each of the sequences has T (T + 1) / 2 pairs of a query and a key. Scores and
// values are two products of a pair; the backward has three of the width of keys (scores again, dq,
// dk) and two of values'.
struct ExpandedOperands {
  ExpandedOperands(const char* model, Index sequences, Index T)
      : name(fmt::format("attention {}", model)),
        shape(benchmark_model(model).expanded_attention()),
        q(normal(sequences * T, shape.n_heads * shape.qk)),
        k(normal(sequences * T, shape.n_heads * shape.qk)),
        v(normal(sequences * T, shape.n_heads * shape.value)),
        dout(normal(sequences * T, shape.n_heads * shape.value)),
        size(fmt::format("{} x {}, H {}", sequences, T, shape.n_heads)),
        pairs(static_cast<double>(sequences * shape.n_heads) * static_cast<double>(T) *
              static_cast<double>(T + 1) / 2) {
    for (Index b = 0; b <= sequences; ++b) offsets.push_back(b * T);
  }
  std::string name;
  AttentionShape shape;
  std::vector<Index> offsets;
  Tensor q, k, v, dout;
  std::string size;
  double pairs;
};

class Measurements {
 public:
  explicit Measurements(const AttentionBench& bench)
      : bench_(bench), memory_(std::max<Index>(4, 256 / bench.smaller) << 20) {}

  // In FP32 and BF16.
  void expanded(const char* model, Index sequences, Index T) {
    const ExpandedOperands x(model, sequences, std::max<Index>(1, T / bench_.smaller));
    measure_expanded<float>(x, "fp32", x.q.v2(), x.k.v2(), x.v.v2(),
                            [] { return fp32_flop_per_s(); });
    const Tensor q = narrow(x.q), k = narrow(x.k), v = narrow(x.v);
    measure_expanded<BF16>(x, "bf16", q.v2<BF16>(), k.v2<BF16>(), v.v2<BF16>(),
                           [] { return bf16_flop_per_s(); });
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
                 r, bench_.rounds, [&] { bf16.attend(); }, [] { return bf16_flop_per_s(); },
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
  template <class T>
  void measure_expanded(const ExpandedOperands& x, const char* form, View2<const T> q,
                        View2<const T> k, View2<const T> v, FunctionRef<double()> limit) {
    const AttentionShape& s = x.shape;
    const double scale = 1 / std::sqrt(static_cast<double>(s.qk));
    Tensor out = Tensor::zeros(x.v.shape()), lse = Tensor::zeros({x.q.extent(0), s.n_heads});
    Result r;
    r.name = x.name;
    r.shape = x.size;
    r.form = form;
    r.flop = 2 * x.pairs * static_cast<double>(s.qk + s.value);
    results_.push_back(measured(
        r, bench_.rounds,
        [&] { attention_forward_batch(s, x.offsets, q, k, v, scale, out.v2(), lse.v2()); }, limit));
    Tensor dq = Tensor::zeros(x.q.shape()), dk = Tensor::zeros(x.k.shape()),
           dv = Tensor::zeros(x.v.shape());
    const Tensor &o = out, &l = lse;
    r.name = "  backward";
    r.flop = 2 * x.pairs * static_cast<double>(3 * s.qk + 2 * s.value);
    results_.push_back(measured(
        r, bench_.rounds,
        [&] {
          attention_backward_batch(s, x.offsets, q, k, v, o.v2(), l.v2(), x.dout.v2(), scale,
                                   dq.v2(), dk.v2(), dv.v2());
        },
        limit));
  }

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

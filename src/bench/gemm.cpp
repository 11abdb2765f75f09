#include "bench/gemm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ops/limits.h"
#include "ops/linear.h"

namespace minke::bench {
namespace {

struct Extents {
  Index T, N, K;
};
enum class Form { F32, Bf16, E4m3, Fp8 };  // Fp8: E4m3 weights and the official arithmetic
constexpr const char* kNames[] = {"fp32", "bf16", "e4m3", "fp8"};

std::string shape_text(Index T, Index N, Index K) {
  return fmt::format("{} x {} x {}", T, N, K);
}

// Contents matter: a unit that multiplies zeros needs less power.
Tensor normal(Index rows, Index columns) {
  Tensor t = Tensor::uninitialized({rows, columns});
  std::uint32_t state = 1;
  for (Index i = 0; i < t.size(); ++i) {
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
    }
    t.flat().data()[i] = sum;
  }
  return t;
}

PackedWeights weights(Index N, Index K, Form form) {
  const Tensor w = normal(N, K);
  if (form == Form::F32 || form == Form::Bf16)
    return PackedWeights::pack(w.v2(), form == Form::F32 ? WeightForm::F32 : WeightForm::Bf16);
  Tensor codes(DType::F8_E4M3, {N, K}), scales = Tensor::zeros({(N + 127) / 128, (K + 127) / 128});
  for (Index i = 0; i < N * K; ++i)
    static_cast<E4M3*>(codes.raw())[i] = E4M3(64 * w.flat().data()[i]);
  std::fill_n(scales.flat().data(), scales.size(), 1.0f / 64);
  const Tensor &c = codes, &s = scales;
  return PackedWeights::pack(c.view<E4M3, 2>(), s.v2());
}

class Measurements {
 public:
  explicit Measurements(const GemmBench& bench)
      : bench_(bench),
        memory_(std::max<Index>(Index{4} << 20, (Index{256} << 20) / bench.smaller)) {}

  void product(Extents e, Form form) {
    e.T = std::max<Index>(1, e.T / bench_.smaller);
    const PackedWeights w = weights(e.N, e.K, form);
    const Tensor x = normal(e.T, e.K);
    Tensor y = Tensor::zeros({e.T, e.N});
    of_flop("linear", shape_text(e.T, e.N, e.K), form, 2.0 * e.T * e.N * e.K,
            [&] { form == Form::Fp8 ? linear_fp8(x.v2(), w, y.v2()) : linear(x.v2(), w, y.v2()); });
  }

  // Enough copies of the weights that each call finds them in memory.
  void few_rows(Extents e, Form form) {
    std::vector<PackedWeights> copies;
    double bytes = 0;
    const double enough =
        static_cast<double>(Index{256} << 20) / static_cast<double>(bench_.smaller);
    while (bytes < enough) {
      copies.push_back(weights(e.N, e.K, form));
      bytes += static_cast<double>(copies.back().bytes());
    }
    const Tensor x = normal(e.T, e.K);
    Tensor y = Tensor::zeros({e.T, e.N});
    const double n = static_cast<double>(copies.size());
    of_bytes("linear from memory", shape_text(e.T, e.N, e.K), form, bytes, n, [&] {
      for (const PackedWeights& w : copies) linear(x.v2(), w, y.v2());
    });
  }

  void experts(Index n, Extents e) {
    e.T = std::max<Index>(1, e.T / bench_.smaller);
    std::vector<PackedWeights> packed;
    std::vector<const PackedWeights*> w;
    std::vector<Index> offsets{0};
    std::vector<Tensor> gradients;
    std::vector<View2<float>> dw;
    for (Index i = 0; i < n; ++i) {
      packed.push_back(weights(e.N, e.K, Form::Bf16));
      offsets.push_back(offsets.back() + e.T);
      gradients.push_back(Tensor::zeros({e.N, e.K}));
    }
    for (const PackedWeights& p : packed) w.push_back(&p);
    for (Tensor& g : gradients) dw.push_back(g.v2());
    const Tensor x = normal(n * e.T, e.K);
    Tensor y = Tensor::zeros({n * e.T, e.N});
    const Tensor& dy = y;
    const double flop = 2.0 * n * e.T * e.N * e.K;
    const std::string shape = fmt::format("{} of {}", n, shape_text(e.T, e.N, e.K));
    of_flop("linear experts", shape, Form::Bf16, flop,
            [&] { linear_grouped(x.v2(), offsets, w, y.v2()); });
    of_flop("gradient experts", shape, Form::Bf16, flop,
            [&] { linear_weight_gradient_grouped(dy.v2(), x.v2(), offsets, dw, Precision::Bf16); });
  }

  void gradient(Extents e, Form form) {
    e.T = std::max<Index>(1, e.T / bench_.smaller);
    const Tensor x = normal(e.T, e.K), dy = normal(e.T, e.N);
    Tensor dw = Tensor::zeros({e.N, e.K});
    of_flop("gradient", shape_text(e.T, e.N, e.K), form, 2.0 * e.T * e.N * e.K, [&] {
      linear_weight_gradient(dy.v2(), x.v2(), dw.v2(),
                             form == Form::F32 ? Precision::Full : Precision::Bf16);
    });
  }

  void packing(Index N, Index K) {
    const Tensor w = normal(N, K);
    PackedWeights straight = PackedWeights::pack(w.v2(), WeightForm::Bf16);
    PackedWeights transposed = PackedWeights::pack_transposed(w.v2(), WeightForm::Bf16);
    const double bytes = static_cast<double>(w.bytes() + straight.bytes());
    const std::string shape = fmt::format("{} x {}", N, K);
    of_bytes("pack", shape, Form::Bf16, bytes, 1, [&] { straight.repack(w.v2()); });
    of_bytes("pack transposed", shape, Form::Bf16, bytes, 1,
             [&] { transposed.repack_transposed(w.v2()); });
  }

  std::vector<Result> take() { return std::move(results_); }

 private:
  void of_flop(const char* name, std::string shape, Form form, double flop,
               FunctionRef<void()> call) {
    Result r;
    r.name = name, r.shape = std::move(shape), r.form = kNames[static_cast<int>(form)];
    r.flop = flop;
    results_.push_back(measured(r, bench_.rounds, call, [&] {
      return form == Form::F32 ? fp32_flop_per_s() : bf16_flop_per_s();
    }));
  }
  // `bytes` of `calls` calls together.
  void of_bytes(const char* name, std::string shape, Form form, double bytes, double calls,
                FunctionRef<void()> call) {
    Result r;
    r.name = name, r.shape = std::move(shape), r.form = kNames[static_cast<int>(form)];
    r.bound = Bound::Bytes;
    r.bytes = bytes;
    r = measured(r, bench_.rounds, call, [&] { return memory_.read_bytes_per_s(); });
    r.seconds /= calls, r.bytes /= calls;
    results_.push_back(std::move(r));
  }

  GemmBench bench_;
  MemoryLimit memory_;
  std::vector<Result> results_;
};

}  // namespace

std::vector<Result> gemm_results(const GemmBench& bench) {
  Measurements m(bench);
  const Extents large[] = {
      {512, 2048, 2048}, {4096, 1408, 2048}, {64, 2048, 2048}, {2048, 512, 512}};
  for (Form form : {Form::F32, Form::Bf16, Form::E4m3, Form::Fp8})
    for (const Extents& e : large) m.product(e, form);
  m.product({4096, 2048, 1408}, Form::Bf16);
  for (Form form : {Form::F32, Form::Bf16, Form::E4m3})
    for (Index T : {1, 8}) m.few_rows({T, 2048, 7168}, form);
  for (Index T : {1, 8}) m.few_rows({T, 7168, 2048}, Form::Bf16);
  m.few_rows({1, 1408, 2048}, Form::E4m3);
  // Training `mini`: the head, the experts, their gradients.
  m.product({4096, 8192, 512}, Form::Bf16);
  m.experts(32, {512, 256, 512});
  m.experts(32, {512, 512, 256});
  m.gradient({4096, 512, 512}, Form::F32);
  m.gradient({4096, 512, 512}, Form::Bf16);
  m.gradient({4096, 8192, 512}, Form::Bf16);
  m.packing(8192, 4096 / std::min<Index>(8, bench.smaller));
  return m.take();
}

}  // namespace minke::bench

#include "bench/moe.h"

#include <fmt/format.h>

#include <memory>

#include "base/random.h"
#include "bench/models.h"
#include "bench/step_bytes.h"
#include "model/experts.h"
#include "ops/limits.h"

namespace minke::bench {
namespace {

SharedTensor normal(Index rows, Index columns, std::uint64_t stream) {
  Tensor t = Tensor::uninitialized({rows, columns});
  Random random(7, stream);
  for (Index i = 0; i < t.size(); ++i) t.flat()(i) = static_cast<float>(random.normal());
  return std::make_shared<const Tensor>(std::move(t));
}

// Two for each matrix element that a token meets.
double flop_per_token(const ModelConfig& c) {
  const Index expert = 3 * c.hidden_size * c.moe_intermediate_size;
  return 2 * static_cast<double>((c.num_experts_per_tok + c.n_shared_experts) * expert +
                                 c.n_routed_experts * c.hidden_size);
}

struct Inputs {
  std::vector<SharedTensor> x;  // one for each call
  MoeBytes touched;             // by all of them
};

Inputs make_inputs(const Model& layer, Index tokens, double enough_bytes) {
  const MoeWeights& moe = layer.weights.layers.front().moe;
  const Index D = layer.config.hidden_size;
  Tensor y = Tensor::uninitialized({tokens, D});
  Inputs inputs;
  do {
    inputs.x.push_back(normal(tokens, D, inputs.x.size()));
    const MoeSaved saved = moe_forward(layer, moe, inputs.x.back(), y.v2());
    const MoeBytes bytes = moe_bytes(moe, saved.gate.indices);
    inputs.touched.weights += bytes.weights;
    inputs.touched.experts += bytes.experts;
  } while (inputs.touched.weights < enough_bytes);
  return inputs;
}

}  // namespace

std::vector<Result> moe_results(const MoeBench& bench) {
  ModelConfig config = benchmark_model(bench.choice.model);
  config.num_hidden_layers = 1;
  config.first_k_dense_replace = 0;
  config.vocab_size = 16;  // the layer alone
  const BenchModel opened = open_random(bench.choice, config, AttentionForm::Absorbed);
  const MoeWeights& moe = opened.model.weights.layers.front().moe;
  const MemoryLimit memory(bench.mib << 20);
  std::vector<Result> results;
  for (const Index tokens : bench.tokens) {
    const Inputs inputs = make_inputs(opened.model, tokens, static_cast<double>(bench.mib << 20));
    const auto calls = static_cast<double>(inputs.x.size());
    Tensor y = Tensor::uninitialized({tokens, config.hidden_size});
    Result r;
    r.name = "moe " + bench.choice.model;
    r.shape = fmt::format("{}", tokens);
    r.form = opened.form;
    r.bytes = inputs.touched.weights;
    r.flop = calls * static_cast<double>(tokens) * flop_per_token(config);
    r.note =
        fmt::format("{:.1f} of {} experts", static_cast<double>(inputs.touched.experts) / calls,
                    config.n_routed_experts);
    r = measured_nearer(
        r, bench.rounds,
        [&] {
          for (const SharedTensor& x : inputs.x) moe_forward(opened.model, moe, x, y.v2());
        },
        [&] { return product_limit(opened.model.compute); },
        [&] { return memory.read_bytes_per_s(); });
    r.seconds /= calls, r.bytes /= calls, r.flop /= calls;
    results.push_back(std::move(r));
  }
  return results;
}

}  // namespace minke::bench

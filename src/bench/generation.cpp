#include "bench/generation.h"

#include <fmt/format.h>

#include "base/random.h"
#include "bench/models.h"
#include "bench/step_bytes.h"
#include "infer/engine.h"
#include "ops/limits.h"

namespace minke::bench {
namespace {

using Ids = std::vector<std::int32_t>;

Ids random_ids(Index n, Index vocabulary) {
  Random random(3);
  Ids ids(static_cast<std::size_t>(n));
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return ids;
}

// Sequences whose past is random rows: what a prompt would leave, without its time.
class Sequences {
 public:
  Sequences(const Model& model, Index n, Index context) : model_(model), context_(context) {
    const ModelConfig& c = model.config;
    Tensor rows = Tensor::uninitialized({kKeyTile, c.cache_row()});
    Random random(4);
    for (Index i = 0; i < rows.size(); ++i) rows.flat()(i) = static_cast<float>(random.normal());
    caches_.reserve(static_cast<std::size_t>(n));
    for (Index i = 0; i < n; ++i) {
      caches_.emplace_back(model);
      caches_.back().reserve(context + 1);
      for (Index layer = 0; layer < c.num_hidden_layers; ++layer)
        for (Index done = 0; done < context; done += kKeyTile)
          caches_.back().append(
              layer, std::as_const(rows).v2().rows(0, std::min(kKeyTile, context - done)));
    }
  }

  // One token each; the caches grow.
  void decode(std::span<const std::int32_t> ids) {
    std::vector<StepInput> inputs;
    for (std::size_t i = 0; i < caches_.size(); ++i)
      inputs.push_back({&caches_[i], ids.subspan(i, 1), AttentionForm::Absorbed});
    step(model_, inputs);
  }

  StepBytes counted_decode(std::span<const std::int32_t> ids) {
    std::vector<Segment> segments;
    std::vector<const LatentCache*> caches;
    for (SequenceCache& cache : caches_) {
      cache.reserve(cache.length(0) + 1);
      segments.push_back({&cache, 1, AttentionForm::Absorbed});
      caches.push_back(&cache);
    }
    Trace trace;
    cached_forward(model_, ids, segments, &trace);
    return step_bytes(model_, caches, trace);
  }

  void rewind() {
    for (SequenceCache& cache : caches_) cache.truncate(context_);
  }

 private:
  const Model& model_;
  Index context_;
  std::vector<SequenceCache> caches_;
};

Index moe_layers(const ModelConfig& c) {
  Index n = 0;
  for (Index i = 0; i < c.num_hidden_layers; ++i) n += c.is_moe(i);
  return n;
}

}  // namespace

std::vector<Result> decode_results(const DecodeBench& bench) {
  const BenchModel opened = open_model(bench.choice, AttentionForm::Absorbed);
  const ModelConfig& c = opened.model.config;
  Sequences sequences(opened.model, bench.sequences, bench.context);
  const Ids ids = random_ids(bench.sequences * bench.steps, c.vocab_size);
  const auto of_step = [&](Index i) {
    return std::span(ids).subspan(static_cast<std::size_t>(i * bench.sequences),
                                  static_cast<std::size_t>(bench.sequences));
  };

  StepBytes total;
  for (Index i = 0; i < bench.steps; ++i) {
    const StepBytes bytes = sequences.counted_decode(of_step(i));
    total.weights += bytes.weights;
    total.cache += bytes.cache;
    total.experts += bytes.experts;
  }
  const auto steps = static_cast<double>(bench.steps);
  Result r;
  r.name = "decode " + opened.name;
  r.shape = fmt::format("{} x 1 after {}", bench.sequences, bench.context);
  r.form = opened.form;
  r.bound = Bound::Bytes;
  r.bytes = total.all();
  r.note = fmt::format("{:.3f} GB weights, {:.3f} GB cache", total.weights / steps * 1e-9,
                       total.cache / steps * 1e-9);
  if (c.n_routed_experts > 0)
    r.note += fmt::format(", {:.1f} of {} experts", static_cast<double>(total.experts) / steps,
                          moe_layers(c) * c.n_routed_experts);

  const MemoryLimit memory(bench.mib << 20);
  r = measured(
      r, bench.rounds,
      [&] {
        sequences.rewind();
        for (Index i = 0; i < bench.steps; ++i) sequences.decode(of_step(i));
      },
      [&] { return memory.read_bytes_per_s(); });
  r.seconds /= steps;
  r.bytes /= steps;
  r.tokens = static_cast<double>(bench.sequences);
  return {r};
}

std::vector<Result> prefill_results(const PrefillBench& bench) {
  const BenchModel opened = open_model(bench.choice, AttentionForm::Expanded);
  const Ids ids = random_ids(bench.tokens, opened.model.config.vocab_size);
  const auto piece = static_cast<std::size_t>(GenerationSettings{}.prefill_chunk);
  SequenceCache cache(opened.model);
  Result r;
  r.name = "prefill " + opened.name;
  r.shape = fmt::format("{}", bench.tokens);
  r.form = opened.form;
  r.flop = prefill_flop(opened.model.config, bench.tokens);
  r.tokens = static_cast<double>(bench.tokens);
  return {measured(
      r, bench.rounds,
      [&] {
        cache.truncate(0);
        for (std::size_t done = 0; done < ids.size(); done += piece) {
          const auto next = std::span(ids).subspan(done, std::min(piece, ids.size() - done));
          const bool last = done + next.size() == ids.size();
          const StepInput input{&cache, next, AttentionForm::Expanded, last};
          step(opened.model, std::span(&input, 1));
        }
      },
      [&] { return product_limit(opened.model.compute); })};
}

}  // namespace minke::bench

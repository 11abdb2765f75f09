#include "bench/train.h"

#include <fmt/format.h>

#include "base/random.h"
#include "bench/models.h"
#include "ops/limits.h"
#include "train/training_speed.h"
#include "train/training_step.h"

namespace minke::bench {
namespace {

std::vector<std::int32_t> random_tokens(Index n, Index vocab) {
  Random random(1);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  for (std::int32_t& t : tokens)
    t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  return tokens;
}

}  // namespace

std::vector<Result> train_results(const TrainBench& bench) {
  const ModelConfig config = benchmark_model(bench.model);
  const Compute compute = parse_compute(bench.compute);
  TrainingForm form;
  form.fp8_scales = bench.fp8_scales == "float" ? ScaleForm::Float : ScaleForm::PowerOfTwo;
  TrainState state =
      begin_training(config, initial_parameters(config, 1), MomentType::Bf16, compute, form);
  const auto tokens = random_tokens(bench.batch * (bench.sequence + 1), config.vocab_size);
  const View2<const std::int32_t> rows(tokens.data(), {bench.batch, bench.sequence + 1});
  PassResult pass;
  const auto gradients = [&] {
    accumulate_gradients(
        state, rows, {}, [] { return false; }, pass);
  };
  const auto update = [&] {
    const double norm = gradient_norm(config, state.gradients);
    apply_gradients(state, {.lr = 1e-4}, 1e-3, pass, norm);
  };

  Result whole;
  whole.name = "train " + bench.model;
  whole.shape = fmt::format("{} x {}", bench.batch, bench.sequence);
  whole.form = compute == Compute::Fp8 && bench.fp8_scales == "float" ? "fp8 float" : bench.compute;
  whole.tokens = static_cast<double>(bench.batch * bench.sequence);
  whole.flop = whole.tokens * training_flop_per_token(config, bench.sequence);
  const auto limit = [&] {
    return compute == Compute::Fp32 ? fp32_flop_per_s() : bf16_flop_per_s();
  };
  std::vector<Result> results;
  results.push_back(measured(
      whole, bench.rounds,
      [&] {
        gradients();
        update();
      },
      limit));

  results.back().note =
      fmt::format("{:.0f} bytes kept of a token", pass.saved_bytes / whole.tokens);

  whole.name = "  gradients";
  whole.tokens = 0;
  results.push_back(measured(whole, bench.rounds, gradients, limit));

  // Gradients are read for the norm, read again and cleared; weights and BF16 moments are read and
  // written; weights are read once more and their two packed forms written.
  const auto n = static_cast<double>(count_parameters(config).total);
  const double packed = compute == Compute::Fp32 ? 8 : 4;
  Result step = whole;
  step.name = "  update";
  step.bound = Bound::Bytes;
  step.flop = step.tokens = 0;
  step.bytes = n * (3 * 4 + 2 * 4 + 2 * 4 + 4 + packed);
  const MemoryLimit memory(Index{256} << 20);
  results.push_back(
      measured(step, bench.rounds, update, [&] { return memory.read_bytes_per_s(); }));
  return results;
}

}  // namespace minke::bench

#include "train/training_speed.h"

#include <algorithm>
#include <chrono>

#include "base/random.h"
#include "model/benchmark_models.h"
#include "train/training_step.h"

namespace minke {
namespace {

constexpr Index kLargestMeasured = 64'000'000;  // parameters
constexpr Index kTokens = 512;                  // of a measured step, about

double seconds(FunctionRef<void()> work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// With MTP modules: their blocks, eh_proj, and the head once more each.
double flop_with_mtp(const ModelConfig& c, Index length) {
  ModelConfig deeper = c;
  deeper.num_hidden_layers += c.num_nextn_predict_layers;
  deeper.num_nextn_predict_layers = 0;
  const auto D = static_cast<double>(c.hidden_size);
  return training_flop_per_token(deeper, length) +
         6 * static_cast<double>(c.num_nextn_predict_layers) *
             (2 * D * D + D * static_cast<double>(c.vocab_size));
}

// One step to warm up, one that counts.
TrainingSpeed measure(const ModelConfig& config, Index length, Compute compute) {
  TrainState state =
      begin_training(config, initial_parameters(config, 1), MomentType::Bf16, compute);
  const Index rows = std::max<Index>(1, kTokens / length);
  Random random(1);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows * (length + 1)));
  for (std::int32_t& t : tokens)
    t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(config.vocab_size)));
  const View2<const std::int32_t> batch(tokens.data(), {rows, length + 1});
  TrainingSpeed speed;
  for (int round = 0; round < 2; ++round) {
    PassResult pass;
    speed.token_s = seconds([&] {
                      accumulate_gradients(
                          state, batch, {}, [] { return false; }, pass);
                    }) /
                    static_cast<double>(rows * length);
    speed.update_s = seconds([&] {
      apply_gradients(state, {.lr = 1e-4}, 1e-3, pass, gradient_norm(config, state.gradients));
    });
  }
  return speed;
}

}  // namespace

double training_flop_per_token(const ModelConfig& c, Index length) {
  const auto active = static_cast<double>(count_parameters(c).active);
  const auto attention = static_cast<double>(c.num_hidden_layers * c.num_attention_heads *
                                             (c.qk_head_dim() + c.v_head_dim) * length);
  return 6 * active + 3 * 2 * attention;
}

TrainingSpeed measure_training_speed(const ModelConfig& config, Index length, Compute compute) {
  const auto parameters = static_cast<double>(count_parameters(config).total);
  if (parameters <= static_cast<double>(kLargestMeasured)) {
    TrainingSpeed speed = measure(config, length, compute);
    speed.measured_on = "two steps of this model";
    return speed;
  }
  const ModelConfig probe = benchmark_model("mini");
  const Index probe_length = std::min<Index>(length, 512);
  TrainingSpeed speed = measure(probe, probe_length, compute);
  speed.measured_on = "two steps of the benchmark model mini, scaled by operations and parameters";
  speed.token_s *= flop_with_mtp(config, length) / flop_with_mtp(probe, probe_length);
  speed.update_s *= parameters / static_cast<double>(count_parameters(probe).total);
  return speed;
}

}  // namespace minke

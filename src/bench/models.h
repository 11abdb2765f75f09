// The models that benchmarks speak of, by name: sizes of real systems, cut where one machine could
// not hold them. Weights are random.
//   mini          107.9 M parameters, 26.7 M active
//   moonlight-9l  4.9 B, 813 M active: nine layers of Moonlight-16B's sizes
//   v3-slice      12.5 B, 1.4 B active: one dense and one MoE layer of DeepSeek-V3
#pragma once
#include <optional>
#include <string_view>

#include "model/config.h"

namespace minke::bench {

// Nothing when no benchmark model has this name.
std::optional<ModelConfig> find_model_config(std::string_view name);
// UsageError naming the known ones.
ModelConfig model_config(std::string_view name);

// Multiply-adds count two. Forward and backward of one token in a sequence of `length`: six for
// each active parameter (the head counts, of the embedding one row), and attention over the whole
// square of the sequence, as is usual although a causal pass does half of it.
double training_flop_per_token(const ModelConfig& config, Index length);

// Forward of a prompt: two for each active parameter without the head and each token, and causal
// attention (token t sees t + 1 keys).
double prefill_flop(const ModelConfig& config, Index tokens);

}  // namespace minke::bench

// The models that benchmarks and plans speak of, by name: sizes of real systems, cut where one
// machine could not hold them.
//   mini          107.9 M parameters, 26.7 M active
//   moonlight-9l  4.9 B, 813 M active: nine layers of Moonlight-16B's sizes
//   v3-slice      12.5 B, 1.4 B active: one dense and one MoE layer of DeepSeek-V3
#pragma once
#include <optional>
#include <string_view>

#include "model/config.h"

namespace minke {

// Nothing when no benchmark model has this name.
std::optional<ModelConfig> find_benchmark_model(std::string_view name);
// UsageError naming the known ones.
ModelConfig benchmark_model(std::string_view name);

}  // namespace minke

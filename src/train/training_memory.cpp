#include "train/training_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/machine_memory.h"
#include "model/parameters.h"

namespace minke {
namespace {

// Elements that a token leaves between F and B, summed over all blocks, MTP modules included.
struct TokenElements {
  double kept = 0;
  RecomputeSavings recomputable;
};

TokenElements elements_of_token(const ModelConfig& c) {
  const auto D = static_cast<double>(c.hidden_size), K = static_cast<double>(c.num_experts_per_tok);
  const auto F = static_cast<double>(c.moe_intermediate_size);
  const auto S = static_cast<double>(c.shared_width());
  const auto H = static_cast<double>(c.num_attention_heads);
  const auto Q = static_cast<double>(c.q_lora_rank.value_or(0));
  const auto qk = static_cast<double>(c.qk_head_dim()), V = static_cast<double>(c.v_head_dim);
  const double heads = H * (2 * qk + V);
  TokenElements e;
  for (Index i = 0; i < c.num_hidden_layers + c.num_nextn_predict_layers; ++i) {
    // Inner elements of the experts that a token visits, or of a dense layer.
    const double inner = c.is_moe(i) ? K * F + S : static_cast<double>(c.intermediate_size);
    const double rows = c.is_moe(i) ? 2 * K * D : 0;  // what goes to the experts and comes back
    // Both norms' inputs and outputs; latents before and after their norms; attention's output.
    e.kept +=
        4 * D + 2 * (Q + static_cast<double>(c.cache_row())) + heads + H * V + 2 * inner + rows;
    e.recomputable.rmsnorm += 2 * D + Q + static_cast<double>(c.kv_lora_rank);
    e.recomputable.mla_up += heads;
    e.recomputable.swiglu += inner;
  }
  return e;
}

}  // namespace

TrainingMemory training_memory(const Recipe& recipe, const ModelConfig& c) {
  const auto n = static_cast<double>(count_parameters(c).total);
  TrainingMemory m;
  m.masters = 4 * n;
  m.gradients = 4 * n;
  m.moments = 2 * (recipe.optimizer.moments == "bf16" ? 2 : 4) * n;
  // Packed twice: for y = x W^T and for dx = dy W.
  m.products = 2 * (recipe.compute == "fp32" ? 4 : 2) * n;
  if (recipe.ema.decay > 0) m.ema = (recipe.ema.dtype == "bf16" ? 2 : 4) * n;
  const auto tokens = static_cast<double>(recipe.tokens_at_a_time());
  m.activations = 4 * tokens * elements_of_token(c).kept +
                  4 * std::min(tokens, 1024.0) * static_cast<double>(c.vocab_size) +
                  4 * static_cast<double>(recipe.tokens_per_step());  // the ids of the whole batch
  return m;
}

void check_memory(const Recipe& recipe, const ModelConfig& config) {
  const double needed = training_memory(recipe, config).total();
  const MachineMemory machine = read_machine_memory();
  const auto here = static_cast<double>(machine.total_bytes + machine.swap_bytes);
  if (here > 0 && needed > here)
    throw ConfigError(
        fmt::format("this training needs about {} of memory, the machine has {}; take a smaller "
                    "model or data.micro_batch (--dry-run says what needs how much)",
                    bytes_text(needed), bytes_text(here)));
}

RecomputeSavings recompute_savings(const ModelConfig& c) {
  RecomputeSavings s = elements_of_token(c).recomputable;
  for (double* elements : {&s.rmsnorm, &s.mla_up, &s.swiglu}) *elements *= sizeof(float);
  return s;
}

}  // namespace minke

#include "plan/decode_bound.h"

#include "plan/cache_bytes.h"
#include "plan/flops.h"

namespace minke {

AttentionIntensity decode_attention(const PlanModel& m) {
  const auto heads = static_cast<double>(m.num_attention_heads);
  const double bytes = 2.0 * static_cast<double>(cache_row(m).elements_per_layer);
  if (m.attention == AttentionKind::Latent)
    return {2 * heads * static_cast<double>(2 * m.kv_lora_rank + m.qk_rope_head_dim), bytes};
  return {2 * heads * 2 * static_cast<double>(m.head_dim), bytes};
}

double ridge_flops_per_byte(const Cluster& c) {
  return c.peak_bf16_flops_per_s / c.memory_bytes_per_s;
}

double single_stream_tokens_per_s(const PlanModel& m, double memory_bytes_per_s, double bits) {
  return memory_bytes_per_s /
         (static_cast<double>(parameter_table(m).active_without_embedding) * bits / 8);
}

double exchange_seconds(const ExchangeLoad& load, double bytes_per_s) {
  return (load.bytes_out + load.bytes_back) * load.tokens * load.copies * load.hidden / bytes_per_s;
}

double token_seconds(double seconds, double layers) {
  return 2 * layers * seconds;
}

double mtp_speedup(double acceptance, double module_cost) {
  return (1 + acceptance) / (1 + module_cost);
}

double mtp_module_cost(const PlanModel& m) {
  const auto main = static_cast<double>(flops_per_token(m, {}).matmul_params);
  return static_cast<double>(flops_per_token(m, {.mtp = true}).matmul_params) / main - 1;
}

}  // namespace minke

#include "plan/one_device.h"

#include <algorithm>
#include <cmath>

#include "plan/cache_bytes.h"
#include "plan/flops.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

bool is_fp8(const WeightBits& weights) {
  return weights.products <= 8;
}

// Parameters of one MoE layer that every token uses: its gate and shared experts.
double common_params(const ParameterTable& t) {
  return real(t.gate + t.shared);
}

// Gates, norms and the head; the embedding is one row a token.
double high_precision_params(const ParameterTable& t) {
  return real(t.head + t.final_norm + (t.n_dense_layers + t.n_moe_layers) * t.block_norms +
              t.n_moe_layers * (t.gate + t.gate_bias));
}

// Seconds of the products and the experts' weights of the MoE layers, T tokens at once.
double moe_seconds(const PlanModel& m, const ParameterTable& t, const Cluster& c, double T,
                   const WeightBits& weights, const PrefillEfficiency& e) {
  if (!m.has_experts()) return 0;
  const double chosen = real(m.num_experts_per_tok * t.expert);
  const double flop = 2 * T * (chosen + common_params(t));
  if (!(e.moe_weights > 0))
    return real(t.n_moe_layers) * flop / (c.peak_bf16_flops_per_s * e.products);
  const double bytes =
      (distinct_experts(m, T) * real(t.expert) + real(t.shared)) * weights.products / 8 +
      real(t.gate) * weights.others / 8;
  return real(t.n_moe_layers) * (bytes / (c.memory_bytes_per_s * e.moe_weights) +
                                 flop / (c.peak_bf16_flops_per_s * e.moe_products));
}

double expansion_params(const ParameterTable& t) {
  for (const TensorCount& tensor : t.attention_tensors)
    if (tensor.name == "kv_b_proj") return real(tensor.count);
  return 0;
}

}  // namespace

double distinct_experts(const PlanModel& m, double tokens) {
  if (!m.has_experts()) return 0;
  const double E = real(m.n_routed_experts);
  return E * (1 - std::pow(1 - real(m.num_experts_per_tok) / E, tokens));
}

double decode_bytes(const PlanModel& m, const DecodeLoad& load) {
  const ParameterTable t = parameter_table(m);
  const double high = high_precision_params(t);
  const double fixed = real(t.total - t.routed_experts_total - t.embedding) - high;
  const double experts =
      real(t.n_moe_layers) * distinct_experts(m, load.sequences) * real(t.expert);
  return (fixed + experts) * load.weights.products / 8 + high * load.weights.others / 8 +
         load.sequences * load.context * cache_row(m).bytes(load.cache_bits);
}

double decode_tokens_per_s(const PlanModel& m, const Cluster& c, const DecodeLoad& load,
                           double efficiency) {
  return load.sequences * c.memory_bytes_per_s * efficiency / decode_bytes(m, load);
}

double decode_efficiency(const Efficiency& e, const WeightBits& weights) {
  const double measured = is_fp8(weights) && e.weights_fp8 > 0 ? e.weights_fp8 : e.weights;
  return measured > 0 ? measured : 1;
}

PrefillEfficiency prefill_efficiency(const Efficiency& e, const WeightBits& weights) {
  const auto or_one = [](double share) { return share > 0 ? share : 1; };
  PrefillEfficiency p;
  p.products = or_one(is_fp8(weights) && e.products_fp8 > 0 ? e.products_fp8 : e.products);
  p.attention = or_one(e.attention);
  p.memory = or_one(e.memory);
  p.few_rows = or_one(e.weights);  // the head is not FP8
  p.moe_weights = e.moe_weights;
  p.moe_products = or_one(e.moe_products);
  return p;
}

double prefill_seconds(const PlanModel& m, const Cluster& c, const PrefillLoad& load,
                       const PrefillEfficiency& e) {
  const ParameterTable t = parameter_table(m);
  const Index layers = t.n_dense_layers + t.n_moe_layers;
  const double dense =
      real(t.n_dense_layers * layer_matmul_params(m, t, false)) +
      real(t.n_moe_layers) * (real(layer_matmul_params(m, t, true)) -
                              real(m.num_experts_per_tok * t.expert) - common_params(t));
  double seconds = real(t.head) * load.weights.others / 8 / (c.memory_bytes_per_s * e.few_rows);
  for (Index done = 0; done < load.tokens; done += load.piece) {
    const double T = real(std::min(load.piece, load.tokens - done));
    const double products = 2 * (T * dense + real(done * layers) * expansion_params(t));
    const double attention = T * real(layers) * layer_attention_flops(m, real(done) + (T + 1) / 2);
    seconds += products / (c.peak_bf16_flops_per_s * e.products) +
               attention / (c.peak_bf16_flops_per_s * e.attention) +
               moe_seconds(m, t, c, T, load.weights, e) +
               T * real(layers) * (block_elementwise_bytes(m) + attention_operand_bytes(m)) /
                   (c.memory_bytes_per_s * e.memory);
  }
  return seconds;
}

}  // namespace minke

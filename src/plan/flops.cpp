#include "plan/flops.h"

namespace minke {

double mean_keys(Index sequence, Mask mask) {
  return mask == Mask::Causal ? static_cast<double>(sequence + 1) / 2
                              : static_cast<double>(sequence);
}

Index layer_matmul_params(const PlanModel& model, const ParameterTable& t, bool is_moe) {
  const Index attention = t.attention - t.attention_norms - t.attention_biases;
  return attention +
         (is_moe ? t.gate + t.shared + model.num_experts_per_tok * t.expert : t.dense_ffn);
}

double layer_attention_flops(const PlanModel& model, double keys) {
  return 2.0 * static_cast<double>(model.num_attention_heads) *
         static_cast<double>(model.qk_size() + model.value_size()) * keys;
}

TokenFlops flops_per_token(const PlanModel& model, const FlopsOptions& options) {
  const ParameterTable t = parameter_table(model);
  const Index modules = options.mtp ? t.n_mtp : 0;
  TokenFlops f;
  f.matmul_params =
      t.n_dense_layers * layer_matmul_params(model, t, false) +
      t.n_moe_layers * layer_matmul_params(model, t, true) + t.head +
      modules * (layer_matmul_params(model, t, model.has_experts()) + t.mtp_projection + t.head);
  f.forward_matmul = 2.0 * static_cast<double>(f.matmul_params);
  f.forward_attention = static_cast<double>(model.num_hidden_layers + modules) *
                        layer_attention_flops(model, mean_keys(options.sequence, options.mask));
  return f;
}

}  // namespace minke

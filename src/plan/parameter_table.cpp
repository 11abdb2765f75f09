#include "plan/parameter_table.h"

namespace minke {
namespace {

std::vector<TensorCount> latent_attention(const PlanModel& m) {
  const Index D = m.hidden_size, H = m.num_attention_heads, C = m.kv_lora_rank;
  const Index queries = H * m.qk_size();
  std::vector<TensorCount> list;
  if (m.q_lora_rank)
    list = {{"q_a_proj", D * *m.q_lora_rank},
            {"q_a_layernorm", *m.q_lora_rank},
            {"q_b_proj", *m.q_lora_rank * queries}};
  else
    list = {{"q_proj", D * queries}};
  list.push_back({"kv_a_proj_with_mqa", D * (C + m.qk_rope_head_dim)});
  list.push_back({"kv_a_layernorm", C});
  list.push_back({"kv_b_proj", C * H * (m.qk_nope_head_dim + m.v_head_dim)});
  list.push_back({"o_proj", H * m.v_head_dim * D});
  return list;
}

std::vector<TensorCount> grouped_attention(const PlanModel& m) {
  const Index D = m.hidden_size, q = m.num_attention_heads * m.head_dim;
  const Index kv = m.num_key_value_heads * m.head_dim;
  std::vector<TensorCount> list = {
      {"q_proj", D * q}, {"k_proj", D * kv}, {"v_proj", D * kv}, {"o_proj", q * D}};
  if (m.qkv_bias) {
    list.push_back({"q_proj.bias", q});
    list.push_back({"k_proj.bias", kv});
    list.push_back({"v_proj.bias", kv});
  }
  return list;
}

void count_attention(const PlanModel& m, ParameterTable& t) {
  t.attention_tensors =
      m.attention == AttentionKind::Latent ? latent_attention(m) : grouped_attention(m);
  for (const TensorCount& tensor : t.attention_tensors) {
    t.attention += tensor.count;
    if (tensor.name.ends_with("layernorm")) t.attention_norms += tensor.count;
    if (tensor.name.ends_with("bias")) t.attention_biases += tensor.count;
  }
}

void count_layers(const PlanModel& m, ParameterTable& t) {
  const Index D = m.hidden_size;
  t.block_norms = 2 * D;
  t.dense_ffn = 3 * D * m.intermediate_size;
  t.n_dense_layers = m.n_dense_layers();
  t.n_moe_layers = m.n_moe_layers();
  t.dense_layer = t.layer_without_experts(false);
  if (!m.has_experts()) return;
  t.expert = 3 * D * m.moe_intermediate_size;
  t.shared = m.n_shared_experts * t.expert;
  t.gate = m.n_routed_experts * D;
  t.gate_bias = m.e_score_correction_bias ? m.n_routed_experts : 0;
  t.moe_layer = t.layer_without_experts(true) + m.n_routed_experts * t.expert;
  t.moe_layer_active = t.layer_without_experts(true) + m.num_experts_per_tok * t.expert;
  t.routed_experts_total = t.n_moe_layers * m.n_routed_experts * t.expert;
}

void count_module(const PlanModel& m, ParameterTable& t) {
  const Index D = m.hidden_size;
  t.n_mtp = m.num_nextn_predict_layers;
  t.mtp_projection = 2 * D * D;
  t.mtp_norms = 3 * D;
  const Index own = t.mtp_projection + t.mtp_norms;
  t.mtp_unique = (m.has_experts() ? t.moe_layer : t.dense_layer) + own;
  t.mtp_with_copies = t.mtp_unique + t.embedding + t.head;
  t.mtp_active_unique = (m.has_experts() ? t.moe_layer_active : t.dense_layer) + own;
  t.mtp_active_with_shared = t.mtp_active_unique + t.embedding + t.head;
  t.checkpoint_total = t.total + t.n_mtp * t.mtp_with_copies;
}

}  // namespace

Index ParameterTable::layer_without_experts(bool is_moe) const {
  return attention + block_norms + (is_moe ? gate + gate_bias + shared : dense_ffn);
}

ParameterTable parameter_table(const PlanModel& m) {
  ParameterTable t;
  count_attention(m, t);
  count_layers(m, t);
  t.embedding = m.vocab_size * m.hidden_size;
  t.head = t.embedding;
  t.final_norm = m.hidden_size;
  const Index dense = t.n_dense_layers * t.dense_layer;
  t.total = t.embedding + t.head + dense + t.n_moe_layers * t.moe_layer + t.final_norm;
  t.active_without_embedding_and_head = dense + t.n_moe_layers * t.moe_layer_active + t.final_norm;
  t.active_without_embedding = t.active_without_embedding_and_head + t.head;
  t.active_with_embedding_and_head = t.active_without_embedding + t.embedding;
  count_module(m, t);
  return t;
}

}  // namespace minke

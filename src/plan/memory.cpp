#include "plan/memory.h"

#include <algorithm>

#include "plan/parameter_table.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

void add_attention_parts(const PlanModel& m, Recompute recompute, bool fp8,
                         std::vector<ActivationPart>& parts) {
  const double D = real(m.hidden_size), H = real(m.num_attention_heads);
  const double qk = real(m.qk_size()), V = real(m.value_size());
  parts.push_back({"input (BF16)", 2 * D});
  if (m.attention == AttentionKind::Latent) {
    if (m.q_lora_rank) parts.push_back({"query latent (BF16)", 2 * real(*m.q_lora_rank)});
    parts.push_back({"key-value latent (BF16)", 2 * real(m.kv_lora_rank + m.qk_rope_head_dim)});
    if (recompute == Recompute::None) {
      parts.push_back({"queries, keys, values (BF16)", 2 * H * (2 * qk + V)});
      parts.push_back(
          {"normalised latents (BF16)", 2 * real(m.q_lora_rank.value_or(0) + m.kv_lora_rank)});
    } else if (!m.q_lora_rank) {
      parts.push_back({"queries (BF16)", 2 * H * qk});  // no latent to compute them from
    }
  } else {
    parts.push_back({"queries, keys, values (BF16)",
                     2 * (H + 2 * real(m.num_key_value_heads)) * real(m.head_dim)});
  }
  if (recompute == Recompute::None) parts.push_back({"normalised input (BF16)", 2 * D});
  parts.push_back(
      {fp8 ? "attention output (E5M6)" : "attention output (BF16)", (fp8 ? 1.5 : 2.0) * H * V});
  parts.push_back({"attention row sums (FP32)", 4 * H});
}

void add_ffn_parts(const PlanModel& m, bool is_moe, Recompute recompute, bool fp8,
                   std::vector<ActivationPart>& parts) {
  const double D = real(m.hidden_size), K = real(m.num_experts_per_tok), element = fp8 ? 1 : 2;
  // Inner width that a token passes.
  const double inner = is_moe ? (K + real(m.n_shared_experts)) * real(m.moe_intermediate_size)
                              : real(m.intermediate_size);
  parts.push_back({"FFN input (BF16)", 2 * D});
  if (recompute == Recompute::None) parts.push_back({"normalised FFN input (BF16)", 2 * D});
  if (is_moe) {
    const double scales = fp8 ? 4 * D / 128 : 0;
    parts.push_back({"dispatched rows", K * (element * D + scales)});
    parts.push_back({"gate scores (FP32)", 4 * real(m.n_routed_experts)});
  }
  parts.push_back({"SwiGLU input", element * 2 * inner});
  if (recompute == Recompute::None) parts.push_back({"SwiGLU output", element * inner});
}

// What of the parameters lies on one rank.
struct HeldParameters {
  double other = 0, expert = 0;
};

HeldParameters held_parameters(const PlanModel& m, const ParameterTable& t, const Layout& l,
                               const std::vector<StageContent>& stages,
                               const std::vector<Index>& hosted) {
  HeldParameters p;
  const double experts = real(m.n_routed_experts) * real(t.expert) / real(l.expert);
  bool embedding = false, module = false;
  for (Index s : hosted) {
    const StageContent& stage = stages[static_cast<std::size_t>(s)];
    p.other += real(stage.dense_layers * t.layer_without_experts(false) +
                    stage.moe_layers * t.layer_without_experts(true));
    p.expert += real(stage.moe_layers) * experts;
    if (stage.head) p.other += real(t.head + t.final_norm);
    const double own =
        real(t.layer_without_experts(m.has_experts()) + t.mtp_projection + t.mtp_norms);
    p.other += real(stage.mtp_modules) * own;
    if (m.has_experts()) p.expert += real(stage.mtp_modules) * experts;
    embedding = embedding || stage.embedding;
    module = module || stage.mtp_modules > 0;
  }
  // MTP shares embedding and head: with dualpipe they meet on one rank (section 3.2.3), otherwise
  // the last one needs a copy.
  if (embedding || module) p.other += real(t.embedding);
  return p;
}

double held_activations(const PlanModel& m, const Layout& l,
                        const std::vector<StageContent>& stages, const std::vector<Index>& hosted) {
  const double dense = activation_bytes(m, false, l.recomputed(), l.fp8);
  const double moe = m.has_experts() ? activation_bytes(m, true, l.recomputed(), l.fp8) : 0;
  double bytes = 0;
  for (Index s : hosted) {
    const StageContent& stage = stages[static_cast<std::size_t>(s)];
    const double module = (m.has_experts() ? moe : dense) + 4 * real(m.hidden_size);
    const double token = real(stage.dense_layers) * dense + real(stage.moe_layers) * moe +
                         real(stage.mtp_modules) * module;
    bytes += token * real(l.micro_batch_tokens()) * real(micro_batches_in_flight(l, s));
  }
  return bytes;
}

// Assumed: FP32 logits of one micro-batch where the head is; rows to and from the experts, of two
// micro-batches when forward and backward overlap; a message each way and direction.
double buffer_bytes(const PlanModel& m, const Layout& l, bool head) {
  const double T = real(l.micro_batch_tokens()), D = real(m.hidden_size);
  const bool dual = has_two_phases(l.kind());
  double bytes = head ? 4 * T * real(m.vocab_size) : 0;
  if (m.has_experts())
    bytes += (dual ? 2 : 1) * T * real(m.num_experts_per_tok) * D * ((l.fp8 ? 1 : 2) + 2);
  if (l.pipeline > 1) bytes += (dual ? 4 : 2) * 2 * T * D;
  if (l.recomputed() == Recompute::Full)  // the layer that is being computed again
    bytes += T * activation_bytes(m, m.has_experts(), Recompute::Selective, l.fp8);
  return bytes;
}

}  // namespace

std::vector<ActivationPart> activation_parts(const PlanModel& model, bool is_moe,
                                             Recompute recompute, bool fp8) {
  if (recompute == Recompute::Full) return {{"input (BF16)", 2 * real(model.hidden_size)}};
  std::vector<ActivationPart> parts;
  add_attention_parts(model, recompute, fp8, parts);
  add_ffn_parts(model, is_moe, recompute, fp8, parts);
  return parts;
}

double activation_bytes(const PlanModel& model, bool is_moe, Recompute recompute, bool fp8) {
  double bytes = 0;
  for (const ActivationPart& part : activation_parts(model, is_moe, recompute, fp8))
    bytes += part.bytes;
  return bytes;
}

Index micro_batches_in_flight(const Layout& l, Index stage) {
  switch (l.kind()) {
    case ScheduleKind::Zb1p:
      return std::min(l.stages(), l.micro_batches);
    case ScheduleKind::DualPipe:  // half of the micro-batches go each way
      return std::min(l.stages() - stage, l.micro_batches / 2);
    default:
      return std::min(l.stages() - stage, l.micro_batches);
  }
}

std::vector<RankMemory> rank_memory(const PlanModel& m, const Layout& l,
                                    const MemorySettings& set) {
  const ParameterTable t = parameter_table(m);
  const std::vector<StageContent> stages = stage_contents(m, l);
  const double expert_weight =
      set.expert_weight_bytes > 0 ? set.expert_weight_bytes : (l.fp8 ? 1 : 2);
  const double mirrors = l.kind() == ScheduleKind::DualPipe && set.mirror_shares_optimizer ? 2 : 1;
  std::vector<RankMemory> ranks;
  for (Index r = 0; r < l.pipeline; ++r) {
    RankMemory row;
    row.rank = r;
    row.stages = hosted_stages(l, r);
    bool head = false;
    for (Index s : row.stages) {
      row.layers.push_back(stages[static_cast<std::size_t>(s)].layers());
      head = head || stages[static_cast<std::size_t>(s)].head;
    }
    const HeldParameters held = held_parameters(m, t, l, stages, row.stages);
    row.other_params = held.other;
    row.expert_params = held.expert;
    row.weights = set.other_weight_bytes * held.other + expert_weight * held.expert;
    row.gradients = set.gradient_bytes * (held.other + held.expert);
    const double shard =
        (held.other / real(l.data) + held.expert / real(l.expert_replicas())) / mirrors;
    row.optimizer = set.optimizer_bytes * shard;
    row.host_average = set.average_bytes * shard;
    row.activations = held_activations(m, l, stages, row.stages);
    row.buffers = buffer_bytes(m, l, head);
    ranks.push_back(std::move(row));
  }
  return ranks;
}

RankMemory largest_rank(const std::vector<RankMemory>& ranks) {
  return *std::max_element(
      ranks.begin(), ranks.end(),
      [](const RankMemory& a, const RankMemory& b) { return a.device_bytes() < b.device_bytes(); });
}

}  // namespace minke

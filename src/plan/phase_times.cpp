#include "plan/phase_times.h"

#include <algorithm>

#include "plan/bubble.h"
#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/traffic.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

// FLOP of a token in one stage.
struct StageFlops {
  double low = 0;      // products in FP8, where the run uses it, but for
  double experts = 0;  // those of routed experts
  double high = 0;     // products that stay BF16: head, eh_proj
  double attention = 0;
  double recomputed = 0;  // in the backward pass, of `low`
};

StageFlops stage_flops(const PlanModel& m, const ParameterTable& t, const Layout& l,
                       const StageContent& stage, double expert_load) {
  const bool moe_module = m.has_experts();
  const double dense = real(layer_matmul_params(m, t, false));
  const double routed = moe_module ? real(m.num_experts_per_tok * t.expert) : 0;
  const double moe =
      moe_module ? real(layer_matmul_params(m, t, true)) + (expert_load - 1) * routed : 0;
  const double module = moe_module ? moe : dense;
  const double n = real(stage.layers() + stage.mtp_modules);
  StageFlops f;
  f.experts = 2 * expert_load * routed * real(stage.moe_layers + stage.mtp_modules);
  f.low = 2 * (real(stage.dense_layers) * dense + real(stage.moe_layers) * moe +
               real(stage.mtp_modules) * module) -
          (moe_module ? f.experts : 0);
  f.high = 2 * ((stage.head ? real(t.head) : 0) +
                real(stage.mtp_modules) * real(t.mtp_projection + t.head));
  f.attention = n * layer_attention_flops(m, mean_keys(l.sequence, Mask::Causal));
  if (l.recomputed() == Recompute::Full) f.recomputed = f.low + f.experts + f.attention;
  if (l.recomputed() == Recompute::Selective && m.attention == AttentionKind::Latent)
    for (const TensorCount& tensor : t.attention_tensors)
      if (tensor.name == "q_b_proj" || tensor.name == "kv_b_proj")
        f.recomputed += 2 * n * real(tensor.count);
  return f;
}

// Elements that the products of a stage read and write for a token. Benchmarks measure products
// whose operands are in the cache; in a model they come from memory and go there.
double operand_bytes(const PlanModel& m, const StageContent& stage, double expert_load) {
  const double D = real(m.hidden_size), F = real(m.moe_intermediate_size);
  const double dense = 3 * (D + real(m.intermediate_size));
  const double experts = expert_load * real(m.num_experts_per_tok) + real(m.n_shared_experts);
  const double moe = experts * 3 * (D + F) + D + real(m.n_routed_experts);
  const double moe_layers = real(stage.moe_layers + stage.mtp_modules);
  return real(stage.layers() + stage.mtp_modules) * attention_operand_bytes(m) +
         4 * (real(stage.dense_layers) * dense + moe_layers * moe +
              (stage.head ? D + real(m.vocab_size) : 0));
}

// Bytes of FP32 rows that a token's forward pass reads and writes between the products of a stage.
double elementwise_bytes(const PlanModel& m, const StageContent& stage, double expert_load) {
  const double D = real(m.hidden_size);
  const double K = expert_load * real(m.num_experts_per_tok);
  const double dense = 3 * real(m.intermediate_size);
  // Rows sorted by expert and added up again; gate scores.
  const double moe = 2 * K * D + (K + 1) * D + 2 * real(m.n_routed_experts) +
                     3 * (K + real(m.n_shared_experts)) * real(m.moe_intermediate_size);
  const double moe_layers = real(stage.moe_layers + stage.mtp_modules);
  return real(stage.layers() + stage.mtp_modules) * block_elementwise_bytes(m) +
         4 * (real(stage.dense_layers) * dense + moe_layers * moe +
              (stage.head ? 3 * real(m.vocab_size) : 0));
}

StagePhases compute_phases(const PlanModel& m, const Cluster& c, const Layout& l,
                           const PhaseSettings& set, const StageContent& stage,
                           const ParameterTable& t, double expert_load) {
  const StageFlops f = stage_flops(m, t, l, stage, expert_load);
  const double T = real(l.micro_batch_tokens());
  const auto bf16 = [&](double efficiency) {  // seconds of a FLOP of each token
    return T / (c.peak_bf16_flops_per_s * (efficiency > 0 ? efficiency : set.bf16_efficiency));
  };
  const bool fp8 = l.fp8 && c.peak_fp8_flops_per_s > 0;
  const double fp8_flop = fp8 ? T / (c.peak_fp8_flops_per_s * set.fp8_efficiency) : 0;
  const double high = bf16(0), low = fp8 ? fp8_flop : high;
  const double experts = fp8 ? fp8_flop : bf16(set.experts_efficiency);
  const double gradients = bf16(set.gradients_efficiency);
  const double products = f.low * low + f.experts * experts + f.high * high;
  const double attention = bf16(set.attention_efficiency) * f.attention;
  const double a_byte = set.elementwise ? T / (c.memory_bytes_per_s * set.memory_efficiency) : 0;
  const double between = a_byte * elementwise_bytes(m, stage, expert_load);
  const double operands = a_byte * operand_bytes(m, stage, expert_load);
  StagePhases p;
  p.forward = products + attention + between + operands;
  // Scores again, gradients of queries and keys; those of probabilities and values.
  const double qk = real(m.qk_size()), value = real(m.value_size());
  p.backward_input = products + attention * (3 * qk + 2 * value) / (qk + value) +
                     f.recomputed * low + 2 * between + operands;
  p.weight = fp8 ? f.low * low + f.experts * experts + f.high * gradients
                 : (f.low + f.experts + f.high) * gradients;
  p.weight += operands;
  return p;
}

void add_exchange(const PlanModel& m, const Cluster& c, const Layout& l, const PhaseSettings& set,
                  const StageContent& stage, double expert_load, StagePhases& p) {
  const double T = real(l.micro_batch_tokens());
  const double between = c.link_between_bytes_per_s * set.link_efficiency;
  const double inside = c.link_inside_bytes_per_s * set.link_efficiency;
  if (m.has_experts() && l.expert > 1) {
    const NodeSpread spread = node_spread(m, expert_nodes(c, l.expert));
    const ExchangeBytes row = exchange_bytes(m, 1, l.fp8);
    const double a_byte =
        std::max(spread.remote_expected / between, real(m.num_experts_per_tok) / inside);
    const double layers = real(stage.moe_layers + stage.mtp_modules);
    p.dispatch = layers * T * expert_load * (row.dispatch_row + row.dispatch_scales) * a_byte;
    p.combine = layers * T * expert_load * row.combine_row * a_byte;
  }
  p.message = pipeline_message_bytes(m, l.micro_batch_tokens()) /
              (l.devices() > c.devices_per_node ? between : inside);
}

OpSeconds ops_of(const Cluster& c, const Layout& l, const StagePhases& p) {
  const auto seconds = [&](OpKind kind) { return alone(op_time(kind, p, p, compute_left(c))); };
  OpSeconds o;
  o.F = seconds(OpKind::F);
  o.B = seconds(OpKind::B);
  o.BI = seconds(OpKind::BI);
  o.W = seconds(OpKind::W);
  o.FB = has_two_phases(l.kind()) ? seconds(OpKind::FB) : o.F + o.B;
  const OpTime pair = op_time(OpKind::FB, p, p, compute_left(c));
  o.exchange_bound = pair.hidden_exchange + pair.exchange > pair.compute;
  return o;
}

void add_step_end(const PlanModel& m, const Cluster& c, const Layout& l, const PhaseSettings& set,
                  PhaseTimes& times) {
  const MemorySettings memory;
  const double link =
      (l.devices() > c.devices_per_node ? c.link_between_bytes_per_s : c.link_inside_bytes_per_s) *
      set.link_efficiency;
  const double mirrors = l.kind() == ScheduleKind::DualPipe ? 2 : 1;
  const auto around = [](double replicas) { return replicas > 1 ? (replicas - 1) / replicas : 0; };
  for (const RankMemory& rank : rank_memory(m, l, memory)) {
    const double bytes =
        rank.other_params * l.synchronised_bytes(false) * around(mirrors * real(l.data)) +
        rank.expert_params * l.synchronised_bytes(true) *
            around(mirrors * real(l.expert_replicas()));
    times.gradients.push_back(bytes / link);
    // Gradients are read for their norm and again; master and moments are read and written.
    const double moved = 2.5 * rank.optimizer + 2 * rank.gradients;
    times.optimizer.push_back(moved / (c.memory_bytes_per_s * set.memory_efficiency));
  }
}

// The mean over the stages of a rank.
OpSeconds mean_ops(const PhaseTimes& times, const std::vector<Index>& hosted) {
  OpSeconds mean;
  const double n = real(static_cast<Index>(hosted.size()));
  for (Index s : hosted) {
    const OpSeconds& o = times.ops[static_cast<std::size_t>(s)];
    mean.F += o.F / n;
    mean.B += o.B / n;
    mean.BI += o.BI / n;
    mean.W += o.W / n;
    mean.FB += o.FB / n;
    mean.exchange_bound = mean.exchange_bound || o.exchange_bound;
  }
  return mean;
}

}  // namespace

double attention_operand_bytes(const PlanModel& m) {
  const double D = real(m.hidden_size), H = real(m.num_attention_heads);
  const double q = H * real(m.qk_size()), out = H * real(m.value_size());
  if (m.attention == AttentionKind::Grouped)
    return 4 * (2 * (D + q) + 2 * (D + real(m.num_key_value_heads * m.head_dim)));
  const double C = real(m.kv_lora_rank), R = real(m.qk_rope_head_dim);
  const double Q = real(m.q_lora_rank.value_or(0));
  const double queries = Q > 0 ? D + Q + Q + q : D + q;
  const double expanded = H * real(m.qk_nope_head_dim + m.v_head_dim);
  return 4 * (queries + D + C + R + C + expanded + out + D);
}

// Two norms and two sums with the residual; latent norms; rotation and the layout of heads.
double block_elementwise_bytes(const PlanModel& m) {
  const double D = real(m.hidden_size), H = real(m.num_attention_heads);
  const double latents = m.attention == AttentionKind::Latent
                             ? 2 * real(m.q_lora_rank.value_or(0) + m.kv_lora_rank)
                             : 0;
  return 4 * (2 * 2 * D + 2 * 3 * D + latents + 2 * H * real(2 * m.qk_size()));
}

PhaseSettings phase_settings(const Cluster& c) {
  PhaseSettings s;
  const Efficiency& e = c.efficiency;
  if (e.products > 0) s.bf16_efficiency = e.products;
  if (e.attention > 0) s.attention_efficiency = e.attention;
  if (e.memory > 0) s.memory_efficiency = e.memory;
  s.experts_efficiency = e.experts;
  s.gradients_efficiency = e.gradients;
  s.elementwise = e.products > 0 && e.memory > 0;
  return s;
}

double compute_left(const Cluster& c) {
  return real(c.compute_units - c.communication_units) / real(c.compute_units);
}

OpTime op_time(OpKind kind, const StagePhases& forward, const StagePhases& backward, double left) {
  const double there = forward.dispatch + forward.combine;
  const double back = backward.dispatch + backward.combine;
  switch (kind) {
    case OpKind::F:
      return {forward.forward, there, 0};
    case OpKind::B:
      return {backward.backward_input + backward.weight, back, 0};
    case OpKind::BI:
      return {backward.backward_input, back, 0};
    case OpKind::W:
      return {backward.weight, 0, 0};
    case OpKind::FB: {
      const double compute = forward.forward + backward.backward_input + backward.weight;
      const double exchange = there + back, overlapped = compute / left;
      if (std::max(overlapped, exchange) < compute + exchange) return {overlapped, 0, exchange};
      return {compute, exchange, 0};
    }
    case OpKind::Comm:
      break;
  }
  return {};
}

double alone(const OpTime& t) {
  return std::max(t.compute, t.hidden_exchange) + t.exchange;
}

PhaseTimes phase_times(const PlanModel& m, const Cluster& c, const Layout& l,
                       const PhaseSettings& set, double expert_load) {
  const ParameterTable t = parameter_table(m);
  PhaseTimes times;
  for (const StageContent& stage : stage_contents(m, l)) {
    StagePhases p = compute_phases(m, c, l, set, stage, t, expert_load);
    add_exchange(m, c, l, set, stage, expert_load, p);
    times.ops.push_back(ops_of(c, l, p));
    times.stages.push_back(p);
  }
  add_step_end(m, c, l, set, times);
  return times;
}

Layout with_balanced_layers(const PlanModel& m, const Cluster& c, const Layout& l,
                            const PhaseSettings& set) {
  const Index S = l.stages(), L = m.num_hidden_layers;
  const ParameterTable t = parameter_table(m);
  const auto seconds = [&](const StageContent& stage) {
    const StagePhases p = compute_phases(m, c, l, set, stage, t, 1);
    return p.forward + p.backward_input + p.weight;
  };
  const StageContent layer = {.dense_layers = m.has_experts() ? 0 : 1,
                              .moe_layers = m.has_experts() ? 1 : 0};
  const StageContent end = {.head = true, .mtp_modules = l.mtp ? m.num_nextn_predict_layers : 0};
  const double extra = seconds(end) / seconds(layer);     // as many layers
  const Index at_end = has_two_phases(l.kind()) ? 2 : 1;  // stages of the rank that has the head
  const Index others = S - at_end;
  if (others < 1) return l;
  // Layers, or as much work, of the slowest rank when the one with the head has `own` layers. What
  // does not divide among the other stages goes to the first ones, so two of those share a rank
  // only when more than half of the stages got one.
  const auto slowest = [&](Index own) {
    const Index rest = L - own, each = rest / others, more = rest % others;
    const Index uneven = more == 0 ? 0 : more <= others / at_end ? 1 : at_end;
    return std::max(real(own) + extra, real(at_end * each + uneven));
  };
  Index own = at_end;
  for (Index n = at_end; n <= L - others; ++n)
    if (slowest(n) < slowest(own)) own = n;
  Layout balanced = l;
  balanced.layers_per_stage.assign(static_cast<std::size_t>(S), (L - own) / others);
  for (Index i = 0; i < (L - own) % others; ++i)
    ++balanced.layers_per_stage[static_cast<std::size_t>(i + at_end - 1)];
  balanced.layers_per_stage.back() = own / at_end;
  if (at_end == 2) balanced.layers_per_stage.front() = own - own / 2;
  return balanced;
}

StepEstimate estimate_step(const PlanModel& m, const Cluster& c, const Layout& l,
                           const PhaseSettings& set) {
  const PhaseTimes times = phase_times(m, c, l, set);
  StepEstimate e;
  for (Index r = 0; r < l.pipeline; ++r) {
    const OpSeconds o = mean_ops(times, hosted_stages(l, r));
    const BubbleFormula f =
        bubble_formula(PipelineSize{l.kind(), l.pipeline, l.micro_batches}, {o.F, o.B, o.W, o.FB});
    const double bubble = std::max(0.0, f.bubble - f.gain);
    const double pipeline = f.makespan - f.bubble + bubble;
    if (pipeline <= e.pipeline_s) continue;
    e.pipeline_s = pipeline;
    e.bubble_s = bubble;
    e.exchange_bound = o.exchange_bound;
  }
  e.gradients_s = *std::max_element(times.gradients.begin(), times.gradients.end());
  e.optimizer_s = *std::max_element(times.optimizer.begin(), times.optimizer.end());
  e.step_s = e.pipeline_s + e.gradients_s + e.optimizer_s;
  e.tokens_per_s_per_device = l.tokens_per_step() / e.step_s / real(l.devices());
  e.mfu = e.tokens_per_s_per_device * flops_per_token(m, {.sequence = l.sequence}).train() /
          c.peak_bf16_flops_per_s;
  return e;
}

}  // namespace minke

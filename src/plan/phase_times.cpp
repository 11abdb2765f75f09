#include "plan/phase_times.h"

#include <algorithm>

#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/traffic.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

bool overlaps(const Layout& l) {
  return l.kind() == PipelineKind::DualPipe || l.kind() == PipelineKind::DualPipeV;
}

// FLOP of a token in one stage.
struct StageFlops {
  double low = 0;   // products in FP8, where the run uses it
  double high = 0;  // products that stay BF16: head, eh_proj
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
  f.low = 2 * (real(stage.dense_layers) * dense + real(stage.moe_layers) * moe +
               real(stage.mtp_modules) * module);
  f.high = 2 * ((stage.head ? real(t.head) : 0) +
                real(stage.mtp_modules) * real(t.mtp_projection + t.head));
  f.attention = n * layer_attention_flops(m, mean_keys(l.sequence, Mask::Causal));
  if (l.recomputed() == Recompute::Full) f.recomputed = f.low + f.attention;
  if (l.recomputed() == Recompute::Selective && m.attention == AttentionKind::Latent)
    for (const TensorCount& tensor : t.attention_tensors)
      if (tensor.name == "q_b_proj" || tensor.name == "kv_b_proj")
        f.recomputed += 2 * n * real(tensor.count);
  return f;
}

StagePhases compute_phases(const Cluster& c, const Layout& l, const PhaseSettings& set,
                           const StageFlops& f) {
  const double T = real(l.micro_batch_tokens());
  const double high = T / (c.peak_bf16_flops_per_s * set.bf16_efficiency);
  const bool fp8 = l.fp8 && c.peak_fp8_flops_per_s > 0;
  const double low = fp8 ? T / (c.peak_fp8_flops_per_s * set.fp8_efficiency) : high;
  const double attention = T / (c.peak_bf16_flops_per_s * set.attention_efficiency) * f.attention;
  StagePhases p;
  p.forward = f.low * low + f.high * high + attention;
  p.backward_input = f.low * low + f.high * high + 2 * attention + f.recomputed * low;
  p.weight = f.low * low + f.high * high;
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
  const double exchange = p.dispatch + p.combine;
  OpSeconds o;
  o.F = p.forward + exchange;
  o.BI = p.backward_input + exchange;
  o.W = p.weight;
  o.B = o.BI + o.W;
  const double left = real(c.compute_units - c.communication_units) / real(c.compute_units);
  const double compute = (p.forward + p.backward_input + p.weight) / (exchange > 0 ? left : 1);
  o.exchange_bound = 2 * exchange > compute;
  // Never longer than one after the other.
  o.FB = overlaps(l) ? std::min(o.F + o.B, std::max(compute, 2 * exchange)) : o.F + o.B;
  return o;
}

void add_step_end(const PlanModel& m, const Cluster& c, const Layout& l, const PhaseSettings& set,
                  PhaseTimes& times) {
  const MemorySettings memory;
  const double link =
      (l.devices() > c.devices_per_node ? c.link_between_bytes_per_s : c.link_inside_bytes_per_s) *
      set.link_efficiency;
  const double mirrors = l.kind() == PipelineKind::DualPipe ? 2 : 1;
  const auto around = [](double replicas) { return replicas > 1 ? (replicas - 1) / replicas : 0; };
  for (const RankMemory& rank : rank_memory(m, l, memory)) {
    const double bytes =
        rank.other_params * (4 + 2) * around(mirrors * real(l.data)) +
        rank.expert_params * (4 + (l.fp8 ? 1 : 2)) * around(mirrors * real(l.expert_replicas()));
    times.gradients.push_back(bytes / link);
    // Gradients of the shard are read; master and moments are read and written.
    const double moved = 2.5 * rank.optimizer + rank.gradients;
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

double bubble_of(const Layout& l, const OpSeconds& o) {
  const double PP = real(l.stages());
  switch (l.kind()) {
    case PipelineKind::OneFOneB:
      return (PP - 1) * (o.F + o.B);
    case PipelineKind::Zb1p:
      return (PP - 1) * std::max(0.0, o.F + o.B - 2 * o.W);
    default:
      return (PP / 2 - 1) * std::max(0.0, o.FB + o.B - 3 * o.W);
  }
}

double busy_of(const Layout& l, const OpSeconds& o) {
  const double PP = real(l.stages()), M = real(l.micro_batches);
  if (l.kind() == PipelineKind::DualPipe) return (M - PP - 1) * o.FB + (PP + 1) * (o.F + o.B);
  if (l.kind() == PipelineKind::DualPipeV)  // a rank forwards every micro-batch twice
    return (2 * M - PP - 1) * o.FB + (PP + 1) * (o.F + o.B);
  return M * (o.F + o.B);
}

}  // namespace

PhaseTimes phase_times(const PlanModel& m, const Cluster& c, const Layout& l,
                       const PhaseSettings& set, double expert_load) {
  const ParameterTable t = parameter_table(m);
  PhaseTimes times;
  for (const StageContent& stage : stage_contents(m, l)) {
    StagePhases p = compute_phases(c, l, set, stage_flops(m, t, l, stage, expert_load));
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
    const StagePhases p = compute_phases(c, l, set, stage_flops(m, t, l, stage, 1));
    return p.forward + p.backward_input + p.weight;
  };
  const StageContent layer = {.dense_layers = m.has_experts() ? 0 : 1,
                              .moe_layers = m.has_experts() ? 1 : 0};
  const StageContent end = {.head = true, .mtp_modules = l.mtp ? m.num_nextn_predict_layers : 0};
  const double extra = seconds(end) / seconds(layer);  // as many layers
  const Index at_end = overlaps(l) ? 2 : 1;            // stages of the rank that has the head
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
    const double bubble = bubble_of(l, o), pipeline = bubble + busy_of(l, o);
    if (pipeline <= e.pipeline_s) continue;
    e.pipeline_s = pipeline;
    e.bubble_s = bubble;
    e.exchange_bound = o.exchange_bound;
  }
  e.gradients_s = *std::max_element(times.gradients.begin(), times.gradients.end());
  e.optimizer_s = *std::max_element(times.optimizer.begin(), times.optimizer.end());
  e.step_s = e.pipeline_s + e.gradients_s + e.optimizer_s;
  e.tokens_per_s_per_device = l.tokens_per_step() / e.step_s / real(l.devices());
  e.mfu = e.tokens_per_s_per_device *
          flops_per_token(m, {.sequence = l.sequence, .mtp = l.mtp}).train() /
          c.peak_bf16_flops_per_s;
  return e;
}

}  // namespace minke

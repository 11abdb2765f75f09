#include "plan/traffic.h"

#include <algorithm>

#include "plan/flops.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

// C(a, k) / C(b, k): that k of b things are all among a of them.
double all_among(Index a, Index b, Index k) {
  double p = 1;
  for (Index i = 0; i < k; ++i) {
    if (a - i <= 0) return 0;
    p *= real(a - i) / real(b - i);
  }
  return p;
}

// C(n, k) as a double.
double choose(Index n, Index k) {
  if (k < 0 || k > n) return 0;
  double c = 1;
  for (Index i = 0; i < k; ++i) c *= real(n - i) / real(i + 1);
  return c;
}

// That one node holds a chosen expert: M of G groups are chosen, then K of their experts.
double node_reached(const PlanModel& m, Index nodes) {
  const Index E = m.n_routed_experts, K = m.num_experts_per_tok;
  const Index G = m.n_group, M = m.topk_group, e = E / G;
  if (nodes >= G) {  // the node holds a part of one group
    const Index own = E / nodes;
    return real(M) / real(G) * (1 - all_among(M * e - own, M * e, K));
  }
  const Index q = G / nodes;  // groups of the node, j of them chosen
  double missed = 0;
  for (Index j = 0; j <= std::min(q, M); ++j)
    missed += choose(q, j) * choose(G - q, M - j) / choose(G, M) * all_among((M - j) * e, M * e, K);
  return 1 - missed;
}

Index most_nodes(const PlanModel& m, Index nodes) {
  const Index G = m.n_group, M = m.topk_group;
  const Index allowed = nodes >= G ? M * (nodes / G) : M;
  return std::max<Index>(1, std::min({allowed, nodes, m.num_experts_per_tok}));
}

// Every micro-batch crosses stages - 1 boundaries, forward and back; dualpipev turns round inside
// the last rank.
double pipeline_bytes_per_token(const PlanModel& m, const Layout& l) {
  const Index local = l.kind() == ScheduleKind::DualPipeV ? 1 : 0;
  return 2 * real(l.stages() - 1 - local) * pipeline_message_bytes(m, 1);
}

// Reduce-scatter of gradients and all-gather of the weights that come back.
double sync_bytes(double params, double replicas, double bytes) {
  return replicas > 1 ? params * bytes * (replicas - 1) / replicas : 0;
}

struct HeldOnAverage {
  double other = 0, expert = 0;
};
HeldOnAverage held_on_average(const PlanModel& m, const Layout& l) {
  const ParameterTable t = parameter_table(m);
  const double modules = l.mtp ? real(t.n_mtp) : 0;
  const double copies = l.kind() == ScheduleKind::DualPipe ? 2 : 1;
  const double moe_layers = real(t.n_moe_layers) + (m.has_experts() ? modules : 0);
  HeldOnAverage h;
  h.expert =
      copies * moe_layers * real(m.n_routed_experts * t.expert) / real(l.expert) / real(l.pipeline);
  h.other =
      copies *
      (real(t.total - t.routed_experts_total) +
       modules * real(t.layer_without_experts(m.has_experts()) + t.mtp_projection + t.mtp_norms)) /
      real(l.pipeline);
  return h;
}

}  // namespace

NodeSpread node_spread(const PlanModel& m, Index nodes) {
  NodeSpread s;
  s.nodes = nodes;
  // Groups that do not fall on whole nodes limit nothing that can be said in general.
  PlanModel free = m;
  if (std::max(nodes, m.n_group) % std::min(nodes, m.n_group) != 0)
    free.n_group = free.topk_group = 1;
  s.most = m.has_experts() ? most_nodes(free, nodes) : 1;
  s.expected = m.has_experts() ? real(nodes) * node_reached(free, nodes) : 1;
  const double others = real(nodes - 1) / real(nodes);
  s.remote_at_most = real(s.most) * others;
  s.remote_expected = s.expected * others;
  if (!m.has_experts()) s.remote_at_most = s.remote_expected = 0;
  return s;
}

Index expert_nodes(const Cluster& c, Index expert_ranks) {
  return (expert_ranks + c.devices_per_node - 1) / c.devices_per_node;
}

ExchangeBytes exchange_bytes(const PlanModel& m, Index nodes_reached, bool fp8) {
  const double D = real(m.hidden_size), nodes = real(nodes_reached),
               K = real(m.num_experts_per_tok);
  ExchangeBytes b;
  b.dispatch_row = D * (fp8 ? 1 : 2);
  b.dispatch_scales = fp8 ? D / 128 * 4 : 0;
  b.combine_row = 2 * D;
  b.dispatch_between = nodes * b.dispatch_row;
  b.dispatch_between_scales = nodes * b.dispatch_scales;
  b.combine_between = nodes * b.combine_row;
  b.dispatch_inside = K * b.dispatch_row;
  b.combine_inside = K * b.combine_row;
  return b;
}

double free_experts_per_node(const Cluster& c) {
  return c.link_inside_bytes_per_s / c.link_between_bytes_per_s;
}
double experts_at_same_cost(const Cluster& c, Index nodes) {
  return real(nodes) * free_experts_per_node(c);
}

double pipeline_message_bytes(const PlanModel& m, Index tokens) {
  return 2 * real(tokens) * real(m.hidden_size);
}

std::vector<TrafficRow> step_traffic(const PlanModel& m, const Cluster& c, const Layout& l) {
  std::vector<TrafficRow> rows;
  const double tokens = l.tokens_per_step() / real(l.devices());  // per device, all of a pipeline's
  const auto add = [&](const char* what, bool between, double per_token, double per_step) {
    const double bandwidth = between ? c.link_between_bytes_per_s : c.link_inside_bytes_per_s;
    rows.push_back({what, between ? "between nodes" : "inside a node", per_token, per_step,
                    per_step / bandwidth});
  };
  if (m.has_experts() && l.expert > 1) {
    const NodeSpread spread = node_spread(m, expert_nodes(c, l.expert));
    const ExchangeBytes one = exchange_bytes(m, 1, l.fp8);
    const double layers = real(m.n_moe_layers() + (l.mtp ? m.num_nextn_predict_layers : 0));
    const double passes = 2 * layers;  // forward and backward
    const double dispatch = passes * (one.dispatch_row + one.dispatch_scales);
    const double combine = passes * one.combine_row;
    const double experts = real(m.num_experts_per_tok);
    if (spread.nodes > 1) {
      add("dispatch", true, spread.remote_expected * dispatch,
          tokens * spread.remote_expected * dispatch);
      add("combine", true, spread.remote_expected * combine,
          tokens * spread.remote_expected * combine);
    }
    add("dispatch", false, experts * dispatch, tokens * experts * dispatch);
    add("combine", false, experts * combine, tokens * experts * combine);
  }
  if (l.pipeline > 1) {
    const double bytes = pipeline_bytes_per_token(m, l);
    // Stages are laid over nodes, data ranks within them, when there is more than one node.
    add("pipeline", l.devices() > c.devices_per_node, bytes, tokens * bytes);
  }
  const HeldOnAverage held = held_on_average(m, l);
  const double mirrors = l.kind() == ScheduleKind::DualPipe ? 2 : 1;
  const double bytes =
      sync_bytes(held.other, mirrors * real(l.data), l.synchronised_bytes(false)) +
      sync_bytes(held.expert, mirrors * real(l.expert_replicas()), l.synchronised_bytes(true));
  if (bytes > 0)
    add("gradients and weights", l.devices() > c.devices_per_node, bytes / tokens, bytes);
  return rows;
}

double compute_over_exchange(const PlanModel& m, const Cluster& c, Index tokens, Index nodes,
                             double share) {
  const double flops = 2 * real(layer_matmul_params(m, parameter_table(m), true)) +
                       layer_attention_flops(m, mean_keys(tokens, Mask::Causal));
  const ExchangeBytes b = exchange_bytes(m, nodes, true);
  const double compute = real(tokens) * flops / (share * c.peak_flops_per_s(true));
  const double exchange =
      real(tokens) * (b.dispatch_between + b.combine_between) / c.link_between_bytes_per_s;
  return compute / exchange;
}

}  // namespace minke

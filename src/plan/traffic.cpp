#include "plan/traffic.h"

#include <algorithm>
#include <cmath>

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

double mtp_modules(const PlanModel& m, const Layout& l) {
  return l.mtp ? real(m.num_nextn_predict_layers) : 0;
}

// Ranks that hold the embedding: those of the first stage, and of the last one for MTP modules.
double embedding_replicas(const PlanModel& m, const Layout& l) {
  const bool two_ranks =
      l.pipeline > 1 && (l.kind() == ScheduleKind::DualPipe ||
                         (mtp_modules(m, l) > 0 && l.kind() != ScheduleKind::DualPipeV));
  return real(l.data) * (two_ranks ? 2 : 1);
}

// What the mean device sends in a step for the gradients and weights of what it holds.
double sync_bytes_of_device(const PlanModel& m, const Layout& l) {
  const ParameterTable t = parameter_table(m);
  const double modules = mtp_modules(m, l);
  const double copies = l.kind() == ScheduleKind::DualPipe ? 2 : 1;
  const double moe_layers = real(t.n_moe_layers) + (m.has_experts() ? modules : 0);
  const double experts = moe_layers * real(m.n_routed_experts * t.expert) / real(l.expert);
  const double others =
      real(t.total - t.routed_experts_total - t.embedding) +
      modules * real(t.layer_without_experts(m.has_experts()) + t.mtp_projection + t.mtp_norms);
  const double of_embedding = embedding_replicas(m, l);
  const double other_bytes = l.synchronised_bytes(false);
  return sync_bytes(copies / real(l.pipeline) * others, copies * real(l.data), other_bytes) +
         sync_bytes(copies / real(l.pipeline) * experts, copies * real(l.expert_replicas()),
                    l.synchronised_bytes(true)) +
         sync_bytes(of_embedding / real(l.devices()) * real(t.embedding), of_embedding,
                    other_bytes);
}

// How often a token of an MoE layer crosses a link, one way: once to each other place that holds
// chosen experts; and how many of its choices are there.
struct Crossings {
  double tokens = 0, choices = 0;
  double places = 0;  // other ones that a rank sends to
};
struct ExchangeHops {
  Crossings between, inside;
};
ExchangeHops exchange_hops(const PlanModel& m, const Cluster& c, const Layout& l) {
  const double K = real(m.num_experts_per_tok), ranks = real(l.expert);
  const NodeSpread nodes = node_spread(m, expert_nodes(c, l.expert));
  const double n = real(nodes.nodes);
  // A token arrives at one rank of a node, which passes it on to the others.
  const double others = 1 - n / ranks;
  return {{nodes.remote_expected, K * (n - 1) / n, n - 1},
          {node_spread(m, l.expert).expected * others, K * others, ranks / n - 1}};
}

double row_bytes(const PlanModel& m, RowForm form) {
  if (form == RowForm::Full) return 4 * real(m.hidden_size);
  const ExchangeBytes one = exchange_bytes(m, 1, form == RowForm::Fp8);
  return one.dispatch_row + one.dispatch_scales;
}

// Of a token and MoE layer over one link, forward and backward.
struct LayerBytes {
  double dispatch = 0, combine = 0, routing = 0;
};
LayerBytes layer_bytes(const PlanModel& m, const Layout& l, const Crossings& crossed) {
  const double K = real(m.num_experts_per_tok);
  const ExchangeForm form = l.exchange_form();
  // What products read goes as such: codes, or numbers in BF16.
  const RowForm inputs = l.fp8                          ? RowForm::Fp8
                         : form.inputs == RowForm::Full ? RowForm::Bf16
                                                        : form.inputs;
  LayerBytes b;
  b.dispatch = crossed.tokens * (row_bytes(m, inputs) + row_bytes(m, form.gradients));
  b.combine = 2 * (form.sums ? crossed.tokens * row_bytes(m, RowForm::Bf16)
                             : crossed.choices * row_bytes(m, RowForm::Full));
  // Counts, the choices of a token and where it came from, its gate weights and their gradients.
  b.routing = 8 * crossed.places / real(l.micro_batch_tokens()) +
              crossed.tokens * (4 * (K + 1) + 4 * K) + 4 * crossed.choices;
  return b;
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
  b.dispatch_scales = fp8 ? std::ceil(D / 128) * 4 : 0;
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
    const double layers = real(m.n_moe_layers()) + mtp_modules(m, l);
    const ExchangeHops hops = exchange_hops(m, c, l);
    for (const bool between : {true, false}) {
      const Crossings& crossed = between ? hops.between : hops.inside;
      if (crossed.places == 0) continue;
      const LayerBytes one = layer_bytes(m, l, crossed);
      for (const auto& [what, bytes] :
           {std::pair{"dispatch", one.dispatch}, std::pair{"combine", one.combine},
            std::pair{"routing", one.routing}})
        add(what, between, layers * bytes, tokens * layers * bytes);
    }
  }
  if (l.pipeline > 1) {
    const double bytes = pipeline_bytes_per_token(m, l);
    // Stages are laid over nodes, data ranks within them, when there is more than one node.
    add("pipeline", l.devices() > c.devices_per_node, bytes, tokens * bytes);
  }
  if (const double bytes = sync_bytes_of_device(m, l); bytes > 0)
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

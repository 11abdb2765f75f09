// Bytes that a training step sends, by purpose and link.
//
// Experts (arXiv 2412.19437, section 3.2.2), of one token and MoE layer: a row goes once to each
// node that holds chosen experts, over the link between nodes, and there to each chosen expert over
// the link inside.
//
//   dispatch   D elements of FP8, with a 4-byte scale for each 128, or BF16
//   combine    D elements of BF16
//   backward   the same two transfers, of gradients
//   routing    counts, the choices of a token, its gate weights and their gradients
//
// The table of a step counts what `minke train` sends (parallel/expert_exchange.h): a row once to
// each other rank that holds chosen experts, and with dispatch "full" FP32 rows, the outputs of a
// token's experts one by one.
//
// Pipeline: T D BF16 elements a micro-batch and stage boundary, back the same of gradients.
// Gradients: reduce-scatter of FP32, all-gather of updated weights (ZeRO-1), once a step. The
// report keeps gradients and master weights in FP32 and computes on BF16 and FP8 ones; that these
// are what is gathered is assumed. `minke train` gathers the masters, in FP32 (Layout::gather). The
// embedding is on the last stage as well where MTP modules read it.
#pragma once
#include <string>
#include <vector>

#include "plan/layout.h"

namespace minke {

// Over how many nodes a token's experts lie, when `nodes` nodes share the experts of a layer.
struct NodeSpread {
  Index nodes = 1;
  Index most = 1;              // that a token may reach: topk_group of n_group groups
  double expected = 1;         // that it reaches when every choice is equally likely
  double remote_at_most = 0;   // without its own node: most (nodes - 1) / nodes
  double remote_expected = 0;  // the same of `expected`
};
NodeSpread node_spread(const PlanModel& model, Index nodes);

// Nodes over which `expert_ranks` devices lie.
Index expert_nodes(const Cluster& cluster, Index expert_ranks);

// Bytes of one token and MoE layer, one way, forward.
struct ExchangeBytes {
  double dispatch_row = 0;     // D elements
  double dispatch_scales = 0;  // of that row
  double combine_row = 0;
  double dispatch_between = 0;  // row x nodes reached (at most), scales not counted
  double dispatch_between_scales = 0;
  double combine_between = 0;
  double dispatch_inside = 0;  // row x chosen experts
  double combine_inside = 0;
};
ExchangeBytes exchange_bytes(const PlanModel& model, Index nodes_reached, bool fp8);

// Experts of a node that a row can go to over the inner link while it crosses the outer one, and
// how many experts a token can have at the price of `nodes` nodes.
double free_experts_per_node(const Cluster& cluster);
double experts_at_same_cost(const Cluster& cluster, Index nodes);

// Bytes and seconds of a message between pipeline stages: tokens x D x 2.
double pipeline_message_bytes(const PlanModel& model, Index tokens);

struct TrafficRow {
  std::string what;             // "dispatch", "combine", "routing", "pipeline", ...
  std::string link;             // "between nodes", "inside a node"
  double bytes_per_token = 0;   // all layers and passes of one token
  double bytes_per_step = 0;    // sent by one device
  double seconds_per_step = 0;  // of that at the link's bandwidth
};
// Expected nodes and ranks under uniform routing, scales included. The mean device of the job.
std::vector<TrafficRow> step_traffic(const PlanModel& model, const Cluster& cluster,
                                     const Layout& layout);

// Seconds that one device computes for `tokens` tokens of an MoE layer's forward pass, at `share`
// of the peak, divided by those of its exchange between nodes (most nodes, scales not counted).
double compute_over_exchange(const PlanModel& model, const Cluster& cluster, Index tokens,
                             Index nodes, double share);

}  // namespace minke

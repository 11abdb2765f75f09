#include "plan/serving.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "plan/cache_bytes.h"
#include "plan/decode_bound.h"
#include "plan/flops.h"
#include "plan/traffic.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

constexpr double kUsableMemory = 0.95;
constexpr const char* kOverview = "DeepSeek-V3/R1 inference system overview, March 2025";

// Parameters on one device outside its routed experts: attention is shared by its ranks, the rest
// of every layer is whole.
double other_params(const PlanModel& m, const ParameterTable& t, const ServingUnit& u) {
  const double attention = real(m.num_hidden_layers * t.attention) / real(u.attention_tensor);
  const double shared = u.shared_everywhere ? real(t.n_moe_layers * t.shared) : 0;
  return attention + shared + real(t.n_dense_layers * t.dense_ffn + t.n_moe_layers * t.gate) +
         real(t.embedding + t.head);
}

double weight_bytes(const PlanModel& m, const ParameterTable& t, const ServingUnit& u, bool fp8) {
  const double experts = routed_experts_per_device(m, u) * real(t.n_moe_layers * t.expert);
  const double bytes = fp8 ? 1 : 2;
  return (other_params(m, t, u) + experts) * bytes + real(t.embedding + t.head) * (2 - bytes);
}

void set_bound(ServingSpeed& s) {
  s.bound = "products and weights";
  if (s.attention_s > s.products_s) s.bound = "attention and cache";
  if (s.exchange_s > s.products_s + s.attention_s) s.bound = "exchange between devices";
}

void decode(const PlanModel& m, const Cluster& c, const ServingUnit& u, const ServingSettings& set,
            ServingSpeed& s) {
  const bool fp8 = c.peak_fp8_flops_per_s > 0;
  const double b = set.sequences_per_device, L = real(m.num_hidden_layers);
  const double drafted = set.acceptance > 0 ? 2 : 1;  // tokens that a step verifies
  const double module = set.acceptance > 0 ? 1 + mtp_module_cost(m) : 1;
  const double bandwidth = c.memory_bytes_per_s * set.memory_efficiency;
  const AttentionIntensity one = decode_attention(m);
  // Every rank of a tensor group reads the latent rows of all the group's sequences.
  const double cache_copies = m.attention == AttentionKind::Latent ? real(u.attention_tensor) : 1;
  s.cache_bytes = b * cache_copies * set.context * cache_row(m).bytes(16);
  const double matmul = 2.0 * real(flops_per_token(m, {}).matmul_params) * b * drafted * module;
  s.products_s = std::max(matmul / (c.peak_flops_per_s(fp8) * set.compute_efficiency),
                          s.weight_bytes / bandwidth);
  s.attention_s = std::max(b * drafted * L * set.context * one.flops /
                               (c.peak_bf16_flops_per_s * set.compute_efficiency),
                           s.cache_bytes / bandwidth);
  const double copies =
      real(m.num_experts_per_tok + (u.shared_everywhere ? 0 : m.n_shared_experts));
  const double link = u.nodes > 1 ? c.link_between_bytes_per_s : c.link_inside_bytes_per_s;
  const double half = u.ranks_of_experts() > 1 && m.has_experts()
                          ? exchange_seconds({.tokens = b * drafted / 2,
                                              .copies = copies,
                                              .hidden = real(m.hidden_size),
                                              .bytes_out = fp8 ? 1.0 : 2.0},
                                             link)
                          : 0;
  s.exchange_s = token_seconds(half, real(m.n_moe_layers()));
  s.exchange_bound_s = token_seconds(half, L);
  s.step_s = std::max(s.products_s + s.attention_s, s.exchange_s);
  s.tokens_per_s_per_sequence = (1 + set.acceptance) / s.step_s;
  s.tokens_per_s_per_node = s.tokens_per_s_per_sequence * b * real(u.devices_per_node);
  s.batch = b * real(u.devices());
  if (m.has_experts())
    s.tokens_per_expert = s.batch * real(m.num_experts_per_tok) / real(m.n_routed_experts);
  const double room = kUsableMemory * c.memory_bytes - s.weight_bytes;
  s.sequences_that_fit = std::floor(std::max(0.0, room) / (s.cache_bytes / b));
}

// Seconds of one prompt token on one device of the unit.
void prefill(const PlanModel& m, const Cluster& c, const ServingUnit& u, const ServingSettings& set,
             ServingSpeed& s) {
  const bool fp8 = c.peak_fp8_flops_per_s > 0;
  const TokenFlops f = flops_per_token(m, {.sequence = static_cast<Index>(set.prompt)});
  s.products_s = f.forward_matmul / (c.peak_flops_per_s(fp8) * set.compute_efficiency);
  s.attention_s = f.forward_attention / (c.peak_bf16_flops_per_s * set.compute_efficiency);
  if (m.has_experts() && u.ranks_of_experts() > 1) {
    const NodeSpread spread = node_spread(m, u.nodes);
    const ExchangeBytes row = exchange_bytes(m, 1, fp8);
    const double bytes = row.dispatch_row + row.dispatch_scales + row.combine_row;
    const double layers = real(m.n_moe_layers());
    s.exchange_s =
        std::max(layers * spread.remote_expected * bytes / c.link_between_bytes_per_s,
                 layers * real(m.num_experts_per_tok) * bytes / c.link_inside_bytes_per_s);
    s.tokens_per_expert = set.prompt * real(u.attention_data()) * real(m.num_experts_per_tok) /
                          real(m.n_routed_experts);
  }
  s.step_s = std::max(s.products_s + s.attention_s, s.exchange_s);
  s.tokens_per_s_per_node = real(u.devices_per_node) / s.step_s / (1 - set.cache_hit);
}

}  // namespace

const std::vector<ServingUnit>& serving_units() {
  static const std::vector<ServingUnit> units = {
      {.name = "report-prefill",
       .source = "arXiv 2412.19437, section 3.4.1",
       .prefill = true,
       .nodes = 4,
       .attention_tensor = 4,
       .expert_ranks = 32,
       .redundant_experts = 32},
      {.name = "report-decode",
       .source = "arXiv 2412.19437, section 3.4.2",
       .nodes = 40,
       .attention_tensor = 4,
       .expert_ranks = 320,
       .redundant_experts = 64,
       .shared_everywhere = false},
      {.name = "production-prefill",
       .source = kOverview,
       .prefill = true,
       .nodes = 4,
       .expert_ranks = 32,
       .redundant_experts = 32},
      {.name = "production-decode",
       .source = kOverview,
       .nodes = 18,
       .expert_ranks = 144,
       .redundant_experts = 32},
      {.name = "node-prefill", .source = "one node", .prefill = true},
      {.name = "node-decode", .source = "one node"}};
  return units;
}

ServingUnit serving_unit(const std::string& name) {
  std::vector<std::string> names;
  std::string list;
  for (const ServingUnit& unit : serving_units()) {
    if (unit.name == name) return unit;
    names.push_back(unit.name);
    list += (list.empty() ? "" : ", ") + unit.name;
  }
  const std::string near = nearest_name(name, names);
  throw UsageError(fmt::format("--unit {}: not known{}; known: {}", name,
                               near.empty() ? "" : "; did you mean '" + near + "'?", list));
}

void check_serving_unit(const PlanModel& m, const ServingUnit& u) {
  const auto refuse = [&](const std::string& what) {
    throw ConfigError(fmt::format("unit {}: {}", u.name, what));
  };
  if (u.ranks_of_experts() > u.devices())
    refuse(fmt::format("{} expert ranks, but it has {} devices; at most {} work",
                       u.ranks_of_experts(), u.devices(), u.devices()));
  if (u.devices() % u.attention_tensor != 0)
    refuse(fmt::format("{} devices cannot be divided into attention groups of {}", u.devices(),
                       u.attention_tensor));
  const Index places = m.n_routed_experts + u.redundant_experts;
  if (m.has_experts() && places % u.ranks_of_experts() != 0)
    refuse(fmt::format(
        "{} routed and {} redundant experts cannot be divided among {} devices; the "
        "next number of redundant experts that works is {}",
        m.n_routed_experts, u.redundant_experts, u.ranks_of_experts(),
        (places + u.ranks_of_experts() - 1) / u.ranks_of_experts() * u.ranks_of_experts() -
            m.n_routed_experts));
}

double routed_experts_per_device(const PlanModel& m, const ServingUnit& u) {
  return m.has_experts()
             ? real(m.n_routed_experts + u.redundant_experts) / real(u.ranks_of_experts())
             : 0;
}

double batch_for_balance(const PlanModel& m, const ServingUnit& u, double tolerance) {
  if (!m.has_experts() || u.ranks_of_experts() == 1) return 1;
  const double n = real(u.ranks_of_experts());
  return n / real(m.num_experts_per_tok) * 2 * std::log(n) / (tolerance * tolerance);
}

double tokens_for_compute_bound(const Cluster& c) {
  const bool fp8 = c.peak_fp8_flops_per_s > 0;
  return c.peak_flops_per_s(fp8) * (fp8 ? 1 : 2) / (2 * c.memory_bytes_per_s);
}

ServingSpeed serving_speed(const PlanModel& m, const Cluster& c, const ServingUnit& u,
                           const ServingSettings& set) {
  check_serving_unit(m, u);
  const ParameterTable t = parameter_table(m);
  ServingSpeed s;
  s.routed_experts = routed_experts_per_device(m, u);
  s.weight_bytes = weight_bytes(m, t, u, c.peak_fp8_flops_per_s > 0);
  s.batch_for_balance = batch_for_balance(m, u, set.balance_tolerance);
  u.prefill ? prefill(m, c, u, set, s) : decode(m, c, u, set, s);
  set_bound(s);
  const double device = kUsableMemory * c.memory_bytes;
  if (s.weight_bytes + s.cache_bytes > device)
    throw ConfigError(
        fmt::format("unit {}: {:.1f} GB of weights and {:.1f} GB of cache do not fit into {:.1f} "
                    "GB of a device "
                    "of {}; {:.0f} sequences a device fit",
                    u.name, s.weight_bytes / 1e9, s.cache_bytes / 1e9, device / 1e9, c.name,
                    s.sequences_that_fit));
  return s;
}

}  // namespace minke

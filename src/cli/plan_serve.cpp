// minke plan serve: units of devices that prefill or decode together.
#include "base/error.h"
#include "cli/plan_inputs.h"
#include "plan/report_facts.h"
#include "plan/serving.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

struct ServeInputs : PlanInputs {
  std::string unit = "all";
  std::optional<std::int64_t> nodes, attention_tensor, expert_ranks, redundant_experts;
  ServingSettings settings;
  template <class Visitor>
  void visit(Visitor& field) {
    const std::string own = " (default: the unit's)";
    field("unit", unit,
          "report-prefill, report-decode, production-prefill, production-decode, node-prefill, "
          "node-decode or all");
    field("nodes", nodes, "nodes of the unit" + own, between(1, 1 << 16));
    field("attention-tensor", attention_tensor, "ranks that share a sequence's heads" + own,
          between(1, 1 << 16));
    field("expert-ranks", expert_ranks, "devices that hold the experts together" + own,
          between(1, 1 << 20));
    field("redundant-experts", redundant_experts, "further copies of experts" + own,
          between(0, 1 << 20));
    settings.visit(field);
  }
};

std::vector<ServingUnit> wanted_units(const ServeInputs& in, const Cluster& c) {
  std::vector<ServingUnit> units;
  if (in.unit == "all")
    units = serving_units();
  else
    units = {serving_unit(in.unit)};
  for (ServingUnit& u : units) {
    u.devices_per_node = c.devices_per_node;
    if (in.nodes) u.nodes = *in.nodes;
    if (in.attention_tensor) u.attention_tensor = *in.attention_tensor;
    if (in.expert_ranks) u.expert_ranks = *in.expert_ranks;
    if (in.redundant_experts) u.redundant_experts = *in.redundant_experts;
  }
  return units;
}

Json unit_json(const ServingUnit& u, const ServingSpeed& s) {
  Json j = {{"name", u.name},
            {"source", u.source},
            {"phase", u.prefill ? "prefill" : "decode"},
            {"nodes", u.nodes},
            {"devices", u.devices()},
            {"attention_tensor", u.attention_tensor},
            {"attention_data", u.attention_data()},
            {"expert_ranks", u.ranks_of_experts()},
            {"redundant_experts", u.redundant_experts},
            {"routed_experts_per_device", s.routed_experts},
            {"weight_bytes_per_device", s.weight_bytes},
            {"tokens_per_expert", s.tokens_per_expert},
            {"products_s", s.products_s},
            {"attention_s", s.attention_s},
            {"exchange_s", s.exchange_s},
            {"step_s", s.step_s},
            {"tokens_per_s_per_node", s.tokens_per_s_per_node},
            {"bound", s.bound}};
  if (u.prefill) return j;
  j["batch"] = s.batch;
  j["batch_for_balance"] = s.batch_for_balance;
  j["cache_bytes_per_device"] = s.cache_bytes;
  j["sequences_that_fit"] = s.sequences_that_fit;
  j["exchange_bound_s"] = s.exchange_bound_s;
  j["tokens_per_s_per_sequence"] = s.tokens_per_s_per_sequence;
  return j;
}

void print_unit(const ServingUnit& u, const ServingSpeed& s, const ServingSettings& set) {
  fmt::print("{} ({})\n", u.name, u.source);
  fmt::print("  {} nodes, {} devices: attention TP{} DP{}, experts EP{}, {} redundant\n", u.nodes,
             u.devices(), u.attention_tensor, u.attention_data(), u.ranks_of_experts(),
             u.redundant_experts);
  fmt::print(
      "  on a device: {:g} routed experts{}, {:.1f} GB of weights\n", s.routed_experts,
      u.shared_everywhere ? " and the shared ones" : " (shared ones take places of redundant ones)",
      s.weight_bytes / 1e9);
  if (u.prefill) {
    fmt::print(
        "  a token: products {:.1f} us, attention {:.1f} us, exchange {:.1f} us (overlapped)\n",
        s.products_s * 1e6, s.attention_s * 1e6, s.exchange_s * 1e6);
    fmt::print(
        "  at most {:.1f} K tokens/s a node{}; bound by {}\n\n", s.tokens_per_s_per_node / 1e3,
        set.cache_hit > 0 ? fmt::format(", {:.1f} % of them cached", set.cache_hit * 100) : "",
        s.bound);
    return;
  }
  fmt::print("  {:g} sequences of {:g} tokens a device: {:.1f} GB of cache, {:.0f} would fit\n",
             set.sequences_per_device, set.context, s.cache_bytes / 1e9, s.sequences_that_fit);
  fmt::print(
      "  batch {:.0f}, {:.0f} tokens an expert; the busiest device is within {:.0f} % from {:.0f} "
      "on\n",
      s.batch, s.tokens_per_expert, set.balance_tolerance * 100, s.batch_for_balance);
  fmt::print("  a step: products {:.2f} ms, attention {:.2f} ms, exchange {:.2f} ms (overlapped)\n",
             s.products_s * 1e3, s.attention_s * 1e3, s.exchange_s * 1e3);
  fmt::print("  at most {:.1f} tokens/s a sequence, {:.1f} K tokens/s a node; bound by {}\n",
             s.tokens_per_s_per_sequence, s.tokens_per_s_per_node / 1e3, s.bound);
  fmt::print("  latency bound of the exchange alone: {:.2f} ms a token\n\n",
             s.exchange_bound_s * 1e3);
}

struct PlannedUnit {
  ServingUnit unit;
  std::optional<ServingSpeed> speed;
  std::string problem;  // why there is none
};

// One unit that does not go with the model is an error, one of several is told in its place.
std::vector<PlannedUnit> plan_units(const ServeInputs& in, const PlanModel& m, const Cluster& c) {
  std::vector<PlannedUnit> list;
  bool any = false;
  for (const ServingUnit& unit : wanted_units(in, c)) {
    PlannedUnit planned{unit, std::nullopt, ""};
    try {
      planned.speed = serving_speed(m, c, unit, in.settings);
      any = true;
    } catch (const ConfigError& error) {
      planned.problem = error.what();
    }
    list.push_back(std::move(planned));
  }
  if (!any) throw ConfigError(list.front().problem);
  return list;
}

void serve(const ServeInputs& in) {
  const PlanModel m = plan_model(in.model);
  const Cluster c = cluster(in.cluster);
  const ServingDay& day = facts::kServingDay;
  const std::vector<PlannedUnit> planned = plan_units(in, m, c);
  Json units = Json::array();
  if (!in.json)
    fmt::print("{} on {}; from {:.0f} tokens on, an expert's products are bound by arithmetic\n\n",
               m.name, c.name, tokens_for_compute_bound(c));
  for (const PlannedUnit& p : planned) {
    if (in.json)
      units.push_back(p.speed ? unit_json(p.unit, *p.speed)
                              : Json{{"name", p.unit.name}, {"problem", p.problem}});
    else if (p.speed)
      print_unit(p.unit, *p.speed, in.settings);
    else
      fmt::print("{}\n\n", p.problem);
  }
  if (in.json) {
    return print_json({{"model", m.name},
                       {"cluster", c.name},
                       {"tokens_per_expert_for_compute_bound", tokens_for_compute_bound(c)},
                       {"units", units},
                       {"published",
                        {{"prefill_tokens_per_s_per_node", facts::kPrefillTokensPerSPerNode},
                         {"decode_tokens_per_s_per_node", facts::kDecodeTokensPerSPerNode},
                         {"cost_usd_per_day", day.cost_usd()},
                         {"revenue_usd_per_day", day.revenue_usd()}}}});
  }
  fmt::print(
      "published for DeepSeek-V3 on H800: {:.1f} K tokens/s in (cached ones counted) and {:.1f} K "
      "out a node;\na day of {:.2f} nodes costs {:.0f} USD, at list prices it would earn {:.0f} "
      "USD\n",
      facts::kPrefillTokensPerSPerNode / 1e3, facts::kDecodeTokensPerSPerNode / 1e3, day.mean_nodes,
      day.cost_usd(), day.revenue_usd());
}

}  // namespace

void add_plan_serve(CLI::App& plan) {
  const auto in = std::make_shared<ServeInputs>();
  CLI::App* command = plan.add_subcommand(
      "serve", "prefill and decode units: experts a device, tokens/s a node, what bounds them");
  add_plan_flags(*command, *in, PlanFlags::Cluster);
  add_flags(*command, OptionList(*in));
  command->callback([in] { serve(*in); });
}

}  // namespace minke

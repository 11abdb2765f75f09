// minke plan params, memory, traffic, values: what follows from a model, a cluster and a layout.
#include "cli/plan_inputs.h"

#include "base/error.h"
#include "cli/plan.h"
#include "cli/plan_pictures.h"
#include "plan/cache_bytes.h"
#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/page_blocks.h"
#include "plan/traffic.h"
#include "plan/values.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

double real(Index n) {
  return static_cast<double>(n);
}

// ---- params -----------------------------------------------------------------------------------

Json params_json(const PlanModel& m, const ParameterTable& t, Index sequence) {
  Json j = {{"model", m.name}, {"source", m.source}};
  for (const TensorCount& tensor : t.attention_tensors)
    j["attention_tensors"][tensor.name] = tensor.count;
  j["attention"] = t.attention;
  j["dense_ffn"] = t.dense_ffn;
  j["expert"] = t.expert;
  j["shared_experts"] = t.shared;
  j["gate"] = t.gate;
  j["gate_bias"] = t.gate_bias;
  j["block_norms"] = t.block_norms;
  j["embedding"] = t.embedding;
  j["head"] = t.head;
  j["final_norm"] = t.final_norm;
  j["dense_layers"] = t.n_dense_layers;
  j["moe_layers"] = t.n_moe_layers;
  j["dense_layer"] = t.dense_layer;
  j["moe_layer"] = t.moe_layer;
  j["moe_layer_active"] = t.moe_layer_active;
  j["routed_experts"] = t.routed_experts_total;
  j["total"] = t.total;
  j["active_with_embedding_and_head"] = t.active_with_embedding_and_head;
  j["active_without_embedding"] = t.active_without_embedding;
  j["active_without_embedding_and_head"] = t.active_without_embedding_and_head;
  j["mtp_modules"] = t.n_mtp;
  if (t.n_mtp > 0) {
    j["mtp_unique"] = t.mtp_unique;
    j["mtp_with_copies"] = t.mtp_with_copies;
    j["mtp_active_unique"] = t.mtp_active_unique;
    j["mtp_active_with_shared"] = t.mtp_active_with_shared;
    j["checkpoint_total"] = t.checkpoint_total;
  }
  const CacheRow cache = cache_row(m);
  j["cache"] = {{"scheme", cache.scheme},
                {"elements_per_layer", cache.elements_per_layer},
                {"bytes_per_token_bf16", cache.bytes(16)}};
  if (const double fp8 = fp8_cache_bytes(m); fp8 > 0) j["cache"]["bytes_per_token_fp8"] = fp8;
  for (const CacheRow& row : cache_alternatives(m))
    j["cache"]["against"].push_back({{"scheme", row.scheme},
                                     {"bytes_per_token_bf16", row.bytes(16)},
                                     {"saving", 1 - cache.bytes(16) / row.bytes(16)}});
  j["flops_per_token"]["sequence"] = sequence;
  for (const auto& [name, mask] : {std::pair{"causal", Mask::Causal}, {"non_causal", Mask::Full}}) {
    const TokenFlops f = flops_per_token(m, {.sequence = sequence, .mask = mask});
    j["flops_per_token"][name] = {{"forward", f.forward()}, {"train", f.train()}};
  }
  return j;
}

void print_params(const PlanModel& m, const ParameterTable& t, Index sequence) {
  fmt::print("{}: {}\n\n", m.name, m.source);
  const auto row = [](const std::string& what, double n, const std::string& note = "") {
    fmt::print("{:<34}{:>20.0f}  {:<12}{}\n", what, n, count_text(n), note);
  };
  for (const TensorCount& tensor : t.attention_tensors) row("  " + tensor.name, real(tensor.count));
  row("attention", real(t.attention), "of one layer, as the next ones");
  row("norms of a layer", real(t.block_norms));
  if (t.n_dense_layers > 0) row("dense FFN", real(t.dense_ffn));
  if (m.has_experts()) {
    row("gate", real(t.gate + t.gate_bias));
    row("shared experts", real(t.shared));
    row("routed expert", real(t.expert),
        fmt::format("{} of {} chosen", m.num_experts_per_tok, m.n_routed_experts));
    row("MoE layer", real(t.moe_layer), fmt::format("{} of them", t.n_moe_layers));
    row("MoE layer, active", real(t.moe_layer_active));
  }
  if (t.n_dense_layers > 0)
    row("dense layer", real(t.dense_layer), fmt::format("{} of them", t.n_dense_layers));
  row("embedding", real(t.embedding));
  row("output head", real(t.head));
  fmt::print("\n");
  row("total", real(t.total));
  row("active, embedding and head", real(t.active_with_embedding_and_head));
  row("active, head only", real(t.active_without_embedding));
  row("active, neither", real(t.active_without_embedding_and_head));
  if (t.n_mtp > 0) {
    row("MTP module", real(t.mtp_unique), fmt::format("{} of them", t.n_mtp));
    row("MTP module, active", real(t.mtp_active_unique));
    row("with MTP and its copies", real(t.checkpoint_total), "as checkpoints store them");
  }
  const CacheRow cache = cache_row(m);
  fmt::print("\ncache of a token (BF16)\n{:<34}{:>20.0f} B\n", "  " + cache.scheme,
             cache.bytes(16));
  if (const double fp8 = fp8_cache_bytes(m); fp8 > 0)
    fmt::print("{:<34}{:>20.0f} B  --cache-dtype fp8\n", "  with FP8 latents", fp8);
  for (const CacheRow& other : cache_alternatives(m)) {
    const double saved = 1 - cache.bytes(16) / other.bytes(16);
    fmt::print("{:<34}{:>20.0f} B  {}\n", "  if it were " + other.scheme, other.bytes(16),
               saved >= 0 ? fmt::format("{} is {:.1f} % less than this", cache.scheme, saved * 100)
                          : fmt::format("{} is {:.2f} times this", cache.scheme, 1 - saved));
  }
  fmt::print("\nFLOP of a token at {} tokens (no recomputation, no MTP)\n", sequence);
  for (const auto& [name, mask] :
       {std::pair{"  causal", Mask::Causal}, {"  full attention square", Mask::Full}}) {
    const TokenFlops f = flops_per_token(m, {.sequence = sequence, .mask = mask});
    fmt::print("{:<34}{:>16.2f} GFLOP forward, {:.2f} GFLOP training\n", name, f.forward() / 1e9,
               f.train() / 1e9);
  }
}

void add_params(CLI::App& plan) {
  struct Inputs : PlanInputs {
    Index sequence = 4096;
  };
  const auto in = std::make_shared<Inputs>();
  CLI::App* command = plan.add_subcommand(
      "params", "parameters by part, total and per token; cache and FLOP of a token");
  add_plan_flags(*command, *in, PlanFlags::Model);
  command->add_option("--sequence", in->sequence, "tokens of a sequence")
      ->check(CLI::Range(Index{1}, Index{1} << 24))
      ->capture_default_str();
  command->callback([in] {
    const PlanModel m = plan_model(in->model);
    const ParameterTable t = parameter_table(m);
    in->json ? print_json(params_json(m, t, in->sequence)) : print_params(m, t, in->sequence);
  });
}

// ---- memory -----------------------------------------------------------------------------------

struct MemoryInputs : PlanInputs {
  MemorySettings settings;
  std::optional<std::string> html;
};

Json memory_json(const Cluster& c, const Layout& l, const MemorySettings& set,
                 const std::vector<RankMemory>& ranks) {
  Json j = {{"layout", layout_json(l)},
            {"device_bytes", c.memory_bytes},
            {"usable_bytes", c.memory_bytes * set.usable_share}};
  for (const RankMemory& r : ranks)
    j["ranks"].push_back({{"rank", r.rank},
                          {"stages", r.stages},
                          {"layers", r.layers},
                          {"non_expert_params", r.other_params},
                          {"expert_params", r.expert_params},
                          {"weights", r.weights},
                          {"gradients", r.gradients},
                          {"optimizer", r.optimizer},
                          {"activations", r.activations},
                          {"buffers", r.buffers},
                          {"total", r.device_bytes()},
                          {"host_average", r.host_average}});
  return j;
}

void print_memory(const PlanModel& m, const Cluster& c, const Layout& l, const MemorySettings& set,
                  const std::vector<RankMemory>& ranks) {
  fmt::print("{} on {}\n{}\n\n", m.name, c.name, l.flags());
  fmt::print("{:>5} {:>9} {:>8} {:>9} {:>9} {:>9} {:>12} {:>8} {:>8}   {:>8}\n", "rank", "stages",
             "layers", "weights", "gradients", "optimiser", "activations", "buffers", "GB", "host");
  for (const RankMemory& r : ranks) {
    std::string stages, layers;
    for (Index s : r.stages) stages += fmt::format("{}{}", stages.empty() ? "" : ",", s);
    for (Index n : r.layers) layers += fmt::format("{}{}", layers.empty() ? "" : "+", n);
    fmt::print(
        "{:>5} {:>9} {:>8} {:>9.2f} {:>9.2f} {:>9.2f} {:>12.2f} {:>8.2f} {:>8.2f}   {:>8.2f}\n",
        r.rank, stages, layers, r.weights / 1e9, r.gradients / 1e9, r.optimizer / 1e9,
        r.activations / 1e9, r.buffers / 1e9, r.device_bytes() / 1e9, r.host_average / 1e9);
  }
  const RankMemory worst = largest_rank(ranks);
  fmt::print("\nrank {} is the fullest: {:.1f} of {:.0f} GB ({:.0f} % can be used)\n", worst.rank,
             worst.device_bytes() / 1e9, c.memory_bytes / 1e9, set.usable_share * 100);
  fmt::print("host: moving average of the weights, FP32, sharded as the master weights\n");
  if (m.has_experts() && m.n_moe_layers() > 0) {
    fmt::print("\nkept of a token in an MoE layer (recomputation {}{}):\n", l.recompute,
               l.fp8 ? ", FP8" : "");
    double sum = 0;
    for (const ActivationPart& part : activation_parts(m, true, l.recomputed(), l.fp8)) {
      fmt::print("  {:<36}{:>10.0f} B\n", part.name, part.bytes);
      sum += part.bytes;
    }
    fmt::print("  {:<36}{:>10.0f} B\n", "together", sum);
  }
  fmt::print(
      "\nassumed, since the report gives none: layers of a stage (--layers-per-stage), what a "
      "layer "
      "keeps, buffers\n");
}

std::string memory_page(const PlanModel& m, const Cluster& c, const Layout& l,
                        const std::vector<RankMemory>& ranks) {
  page::HtmlPage page(fmt::format("Memory of {} on {}", m.name, c.name));
  page.paragraph(l.flags());
  page.paragraph(fmt::format("GB of the {:.0f} of a device.", c.memory_bytes / 1e9));
  page.bars(memory_bars(ranks));
  if (m.has_experts() && m.n_moe_layers() > 0) {
    page.heading("Kept of a token in an MoE layer");
    page::Table parts{{"part", "bytes"}, {}};
    for (const ActivationPart& part : activation_parts(m, true, l.recomputed(), l.fp8))
      parts.rows.push_back({part.name, fmt::format("{:.0f}", part.bytes)});
    page.table(parts);
  }
  return page.finish();
}

void add_memory(CLI::App& plan) {
  const auto in = std::make_shared<MemoryInputs>();
  CLI::App* command = plan.add_subcommand(
      "memory",
      "bytes on every pipeline rank: weights, gradients, optimiser, activations, buffers");
  add_plan_flags(*command, *in, PlanFlags::Layout);
  command->add_option("--html", in->html, "write a page: memory of every rank by part");
  command->callback([in] {
    const PlanModel m = plan_model(in->model);
    const Cluster c = cluster(in->cluster);
    const Layout l = complete_layout(m, c, in->layout);
    const std::vector<RankMemory> ranks = rank_memory(m, l, in->settings);
    if (in->html) {
      write_page(*in->html, memory_page(m, c, l, ranks));
      if (!in->json) return;
    }
    in->json ? print_json(memory_json(c, l, in->settings, ranks))
             : print_memory(m, c, l, in->settings, ranks);
  });
}

// ---- traffic ----------------------------------------------------------------------------------

void traffic(const PlanInputs& in) {
  const PlanModel m = plan_model(in.model);
  const Cluster c = cluster(in.cluster);
  const Layout l = complete_layout(m, c, in.layout);
  const std::vector<TrafficRow> rows = step_traffic(m, c, l);
  const NodeSpread spread = node_spread(m, expert_nodes(c, l.expert));
  const ExchangeBytes b = exchange_bytes(m, spread.most, l.fp8);
  if (in.json) {
    Json j = {{"layout", layout_json(l)}};
    if (m.has_experts())
      j["exchange_per_token_and_layer"] = {
          {"nodes", spread.nodes},
          {"nodes_at_most", spread.most},
          {"nodes_expected", spread.expected},
          {"remote_nodes_at_most", spread.remote_at_most},
          {"remote_nodes_expected", spread.remote_expected},
          {"dispatch_between_bytes_at_most", b.dispatch_between},
          {"dispatch_between_scale_bytes", b.dispatch_between_scales},
          {"combine_between_bytes_at_most", b.combine_between},
          {"dispatch_inside_bytes", b.dispatch_inside},
          {"combine_inside_bytes", b.combine_inside}};
    j["step"] = Json::array();
    for (const TrafficRow& r : rows)
      j["step"].push_back({{"what", r.what},
                           {"link", r.link},
                           {"bytes_per_token", r.bytes_per_token},
                           {"bytes_per_device", r.bytes_per_step},
                           {"seconds", r.seconds_per_step}});
    return print_json(j);
  }
  fmt::print("{} on {}\n{}\n\n", m.name, c.name, l.flags());
  if (m.has_experts()) {
    fmt::print("one token and MoE layer, one way; experts over {} node{}:\n", spread.nodes,
               spread.nodes == 1 ? "" : "s");
    fmt::print(
        "  nodes reached             at most {}, {:.2f} expected; without its own {:.2f}, {:.2f}\n",
        spread.most, spread.expected, spread.remote_at_most, spread.remote_expected);
    fmt::print("  dispatch, between nodes   {:.0f} B and {:.0f} B of scales, at most\n",
               b.dispatch_between, b.dispatch_between_scales);
    fmt::print("  combine, between nodes    {:.0f} B, at most\n", b.combine_between);
    fmt::print("  dispatch, inside a node   {:.0f} B\n", b.dispatch_inside);
    fmt::print("  combine, inside a node    {:.0f} B\n", b.combine_inside);
    fmt::print("  {:.1f} experts of a node cost no more than one, {:.1f} in all\n\n",
               free_experts_per_node(c), experts_at_same_cost(c, spread.most));
  }
  fmt::print("{:<24}{:<16}{:>18}{:>20}{:>12}\n", "a step", "link", "a token", "sent by a device",
             "seconds");
  for (const TrafficRow& r : rows)
    fmt::print("{:<24}{:<16}{:>18}{:>20}{:>12.3f}\n", r.what, r.link, bytes_text(r.bytes_per_token),
               bytes_text(r.bytes_per_step), r.seconds_per_step);
  fmt::print(
      "\nexpected nodes under uniform routing, scales included, forward and backward; seconds "
      "at the link's bandwidth, not overlapped\n");
}

void add_traffic(CLI::App& plan) {
  const auto in = std::make_shared<PlanInputs>();
  CLI::App* command = plan.add_subcommand(
      "traffic", "bytes between devices: experts, pipeline, gradients, by token, step and link");
  add_plan_flags(*command, *in, PlanFlags::Layout);
  command->callback([in] { traffic(*in); });
}

// ---- values -----------------------------------------------------------------------------------

void add_values(CLI::App& plan) {
  const auto in = std::make_shared<PlanInputs>();
  CLI::App* command =
      plan.add_subcommand("values", "the published figures of DeepSeek-V3, computed");
  add_plan_flags(*command, *in, PlanFlags::Layout);
  command->callback([in] {
    const PlanModel m = plan_model(in->model);
    const Cluster c = cluster(in->cluster);
    check_published_model(m);
    const NamedValues values = published_values(m, c, complete_layout(m, c, in->layout));
    Json j = Json::object();
    for (const auto& [key, value] : values) j[key] = value;
    if (in->json) return print_json(j);
    for (const auto& [key, value] : values) fmt::print("{:<52}{:>24.10g}\n", key, value);
  });
}

}  // namespace

void add_plan_model_commands(CLI::App& plan) {
  add_params(plan);
  add_memory(plan);
  add_traffic(plan);
  add_plan_time(plan);
  add_plan_cost(plan);
  add_plan_serve(plan);
  add_plan_search(plan);
  add_plan_generate(plan);
  add_plan_calibrate(plan);
  add_values(plan);
}

}  // namespace minke

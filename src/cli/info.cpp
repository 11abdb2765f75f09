// minke info: what this machine offers, and what a model needs, before anything is loaded.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "base/machine_memory.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "model/checkpoint.h"
#include "model/latent_cache.h"
#include "model/weight_bytes.h"
#include "ops/isa.h"
#include "parallel/mpi.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

std::string count_text(Index n) {
  if (n >= 1'000'000'000) return fmt::format("{:.2f} B", static_cast<double>(n) / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.2f} M", static_cast<double>(n) / 1e6);
  return std::to_string(n);
}

void info_cpu(bool as_json) {
  const CpuFeatures& f = cpu_features();
  std::string available;
  for (Isa isa : available_isas())
    available += fmt::format("{}{}", available.empty() ? "" : " ", name_of(isa));
  if (as_json) {
    Json j = {{"model", f.model},
              {"cores", available_cores()},
              {"avx2", f.avx2},
              {"avx512", f.avx512},
              {"avx512_bf16", f.avx512_bf16},
              {"avx512_vnni", f.avx512_vnni},
              {"amx", f.amx},
              {"l1d_bytes", f.l1d_bytes},
              {"l2_bytes", f.l2_bytes},
              {"l3_bytes", f.l3_bytes},
              {"available", available},
              {"chosen", name_of(chosen_isa())}};
    j["numa_nodes"] = topology().n_nodes();
    j["mpi"] = mpi_version();
    fmt::print("{}\n", j.dump(2));
    return;
  }
  const auto yes = [](bool b) { return b ? "yes" : "no"; };
  fmt::print("processor     {}\n", f.model);
  fmt::print("cores         {} (threads in use: {})\n", available_cores(), n_threads());
  fmt::print("caches        L1d {}, L2 {}, L3 {}\n", bytes_text(static_cast<double>(f.l1d_bytes)),
             bytes_text(static_cast<double>(f.l2_bytes)),
             bytes_text(static_cast<double>(f.l3_bytes)));
  for (Index home = 0; n_homes() > 1 && home < n_homes(); ++home) {
    const TopologyNode& node = topology().nodes()[static_cast<std::size_t>(home)];
    fmt::print("NUMA node {:<4}{} threads on cores {}\n", node.number, n_threads_of_home(home),
               cpu_list_text(node.cpus));
  }
  const MachineMemory memory = read_machine_memory();
  fmt::print("memory        {} available of {}\n",
             bytes_text(static_cast<double>(memory.available_bytes)),
             bytes_text(static_cast<double>(memory.total_bytes)));
  fmt::print("AVX2 {}, AVX-512 {}, AVX512_BF16 {}, AVX512_VNNI {}, AMX {}\n", yes(f.avx2),
             yes(f.avx512), yes(f.avx512_bf16), yes(f.avx512_vnni), yes(f.amx));
  fmt::print("can run       {}\n", available);
  fmt::print("chosen        {} (--isa forces another)\n", name_of(chosen_isa()));
  const std::string mpi = mpi_version();
  fmt::print("MPI           {}\n", mpi.empty() ? "not built in: one process" : mpi);
}

void info_model(const std::string& directory, bool as_json) {
  const CheckpointSummary s = summarize_checkpoint(directory);
  ModelConfig c = s.config;
  c.num_nextn_predict_layers = s.mtp_present;
  const double cache = static_cast<double>(cache_bytes_per_token(c, DType::BF16));
  const LinearStorage storage = storage_of(c);
  const double needed = weight_bytes(c, storage, Compute::Bf16).held;
  const double here = static_cast<double>(read_machine_memory().available_bytes);
  Index moe_layers = 0;
  for (Index i = 0; i < c.num_hidden_layers; ++i) moe_layers += c.is_moe(i);
  if (as_json) {
    Json dtypes = Json::object();
    for (const auto& [name, bytes] : s.bytes_by_dtype) dtypes[name] = bytes;
    const Json j = {{"layers", c.num_hidden_layers},
                    {"moe_layers", moe_layers},
                    {"mtp_modules", s.mtp_present},
                    {"mtp_modules_announced", s.config.num_nextn_predict_layers},
                    {"parameters", s.count.main},
                    {"parameters_with_mtp", s.count.total},
                    {"active_parameters", s.count.active},
                    {"active_parameters_with_embedding", s.count.active + s.count.embedding},
                    {"mtp_parameters", s.count.mtp},
                    {"tensors", s.n_tensors},
                    {"files", s.n_files},
                    {"weight_bytes", s.weight_bytes},
                    {"weight_bytes_by_dtype", dtypes},
                    {"cache_bytes_per_token", cache},
                    {"memory_needed_bytes", needed},
                    {"memory_available_bytes", here}};
    fmt::print("{}\n", j.dump(2));
    return;
  }
  fmt::print("layers        {} ({} dense, {} MoE)\n", c.num_hidden_layers,
             c.num_hidden_layers - moe_layers, moe_layers);
  fmt::print("MTP modules   {}{}\n", s.mtp_present,
             s.mtp_present < s.config.num_nextn_predict_layers
                 ? fmt::format(" (config.json announces {}; the weights are absent)",
                               s.config.num_nextn_predict_layers)
                 : "");
  if (c.n_routed_experts > 0)
    fmt::print("experts       {} routed, {} chosen per token, {} shared\n", c.n_routed_experts,
               c.num_experts_per_tok, c.n_shared_experts);
  fmt::print("parameters    {} total, {} active per token ({} with the input embedding), MTP {}\n",
             count_text(s.count.main), count_text(s.count.active),
             count_text(s.count.active + s.count.embedding), count_text(s.count.mtp));
  fmt::print("on disk       {} in {} tensors, {} files\n",
             bytes_text(static_cast<double>(s.weight_bytes)), s.n_tensors, s.n_files);
  for (const auto& [name, bytes] : s.bytes_by_dtype)
    fmt::print("              {:8} {}\n", name, bytes_text(static_cast<double>(bytes)));
  fmt::print("latent cache  {:.0f} bytes a token (BF16), {} for {} tokens\n", cache,
             bytes_text(cache * static_cast<double>(c.max_position_embeddings)),
             c.max_position_embeddings);
  fmt::print("memory        {} needed for the weights (--compute bf16), {} available here{}\n",
             bytes_text(needed), bytes_text(here), needed > here ? ": it will NOT fit" : "");
}

}  // namespace

void add_info(CLI::App& app) {
  struct Options {
    bool cpu = false, json = false;
    std::string model;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("info", "What this machine offers, or what a model needs");
  c->add_flag("--cpu", o->cpu, "the processor, and which instruction set was chosen");
  c->add_option("--model", o->model, "model directory: layers, parameters, bytes, memory");
  c->add_flag("--json", o->json, "one JSON document");
  c->callback([o] {
    if (o->cpu == !o->model.empty()) throw UsageError("info needs either --cpu or --model DIR");
    if (o->cpu)
      info_cpu(o->json);
    else
      info_model(o->model, o->json);
  });
}

}  // namespace minke

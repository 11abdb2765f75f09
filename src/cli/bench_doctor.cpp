// minke bench doctor: what a model can reach on this machine, in plain words.
#include "cli/bench_doctor.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/doctor.h"
#include "cli/bench_output.h"
#include "ops/limits.h"

namespace minke {
namespace {

using bench::Diagnosis;
using bench::Footing;
using Json = nlohmann::ordered_json;

constexpr Index kContexts[] = {0, 4096, 32768};

std::string bytes_text(std::uint64_t bytes) {
  return minke::bytes_text(static_cast<double>(bytes));
}

Json footing_json(const Diagnosis& d, const Footing& f) {
  Json bounds = Json::object();
  for (const Index context : kContexts)
    bounds[std::to_string(context)] = d.decode_bound(f, context);
  return {{"weights", name_of(f.storage)},
          {"weight_bytes", f.weights.held},
          {"bytes_per_token", f.weights.per_token},
          {"cache_bytes_per_token", f.cache_of_token},
          {"fits", d.fits(f)},
          {"decode_bound_tokens_per_s", bounds}};
}

// Of a node whose memory is there; null when no thread has it near.
const bench::NodeInUse* threads_of(const Diagnosis& d, const NumaNode& node) {
  for (const bench::NodeInUse& home : d.homes)
    if (home.number == node.number) return &home;
  return nullptr;
}

void print_json(const Diagnosis& d, const std::vector<std::string>& advice) {
  Json nodes = Json::array();
  for (const NumaNode& node : d.memory.nodes) {
    const bench::NodeInUse* home = threads_of(d, node);
    nodes.push_back({{"node", node.number},
                     {"bytes", node.total_bytes},
                     {"free_bytes", node.free_bytes},
                     {"cpus", home ? Json(home->cpus) : Json()},
                     {"threads", home ? Json(home->threads) : Json()}});
  }
  Json j = results_json({d.bandwidth});
  j["doctor"] = {{"model", d.model.name},
                 {"parameters", d.model.count.main},
                 {"active_parameters", d.model.count.active},
                 {"memory_available_bytes", d.memory.available_bytes},
                 {"memory_bytes", d.memory.total_bytes},
                 {"swap_bytes", d.memory.swap_bytes},
                 {"swap_free_bytes", d.memory.swap_free_bytes},
                 {"huge_pages", d.memory.huge_pages},
                 {"numa", nodes},
                 {"stored", footing_json(d, d.stored)},
                 {"converted", footing_json(d, d.converted)},
                 {"prefill_bound_tokens_per_s", d.prefill_bound()},
                 {"advice", advice}};
  fmt::print("{}\n", j.dump(2));
}

void print_nodes(const Diagnosis& d) {
  if (d.memory.nodes.size() < 2) return fmt::print("NUMA            one node\n");
  fmt::print("NUMA            {} nodes{}\n", d.memory.nodes.size(),
             d.homes.empty() ? ", threads are kept on none"
                             : "; threads are kept on a node each, and weights lie near them");
  for (const NumaNode& node : d.memory.nodes) {
    const bench::NodeInUse* home = threads_of(d, node);
    fmt::print("  node {:<9} {} free of {}, {}\n", node.number, bytes_text(node.free_bytes),
               bytes_text(node.total_bytes),
               home ? fmt::format("{} threads on cores {}", home->threads, home->cpus)
                    : "no threads of its own");
  }
}

void print_machine(const Diagnosis& d) {
  fmt::print("processor       {}, {} cores, {} threads in use\n", d.cpu.model, d.cores, d.threads);
  fmt::print("instructions    {}; products in BF16 by {}\n", name_of(d.isa), bf16_limit_name());
  fmt::print("memory          {} available of {}, swap {}\n", bytes_text(d.memory.available_bytes),
             bytes_text(d.memory.total_bytes),
             d.memory.swap_bytes > 0
                 ? fmt::format("{} free of {}", bytes_text(d.memory.swap_free_bytes),
                               bytes_text(d.memory.swap_bytes))
                 : "none");
  print_nodes(d);
  fmt::print("huge pages      {}\n", d.memory.huge_pages == "always"    ? "always given"
                                     : d.memory.huge_pages == "madvise" ? "given to minke (it asks)"
                                     : d.memory.huge_pages == "never"   ? "never given"
                                                                        : "unknown");
  fmt::print("memory is read  at {:.1f} GB/s ({})\n", d.bandwidth.rate() * 1e-9, d.bandwidth.shape);
}

void print_footing(const Diagnosis& d, const Footing& f) {
  fmt::print("  weights       {}; {}\n", minke::bytes_text(f.weights.held),
             d.fits(f) ? "they fit in the memory that is available"
                       : "they do NOT fit in the memory that is available");
  fmt::print("  each token    reads {} of weights, and {} for each token of the context\n",
             minke::bytes_text(f.weights.per_token), minke::bytes_text(f.cache_of_token));
  fmt::print("  so, at most   ");
  const char* separator = "";
  for (const Index context : kContexts) {
    fmt::print("{}{:.1f} tokens/s {}", separator, d.decode_bound(f, context),
               context == 0 ? "at the beginning" : fmt::format("after {} tokens", context));
    separator = ", ";
  }
  fmt::print(" (one sequence)\n");
}

void print_text(const Diagnosis& d, const std::vector<std::string>& advice) {
  print_machine(d);
  fmt::print("\n{}: {:.1f} M parameters, of which a token uses {:.1f} M\n", d.model.name,
             static_cast<double>(d.model.count.main) * 1e-6,
             static_cast<double>(d.model.count.active) * 1e-6);
  fmt::print("as it is, in {}\n", name_of(d.stored.storage));
  print_footing(d, d.stored);
  fmt::print("converted to {}\n", name_of(d.converted.storage));
  print_footing(d, d.converted);
  fmt::print(
      "a prompt is read at {:.0f} tokens/s at most: {:.2f} TFLOP/s over {:.2f} GFLOP a token\n",
      d.prefill_bound(), d.product_flop_per_s * 1e-12, d.flop_of_prompt_token * 1e-9);
  if (!advice.empty()) fmt::print("\nwhat would help\n");
  for (const std::string& line : advice) fmt::print("- {}\n", line);
  fmt::print(
      "\nThese are bounds of the machine; `minke bench decode` and `prefill` measure what is "
      "reached.\n");
}

}  // namespace

void add_bench_doctor(CLI::App& bench) {
  struct Options {
    bench::DoctorBench bench;
    bool json = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* cmd = bench.add_subcommand(
      "doctor", "what bounds a model on this machine, and what would help, in plain words");
  cmd->add_option("--model", o->bench.model, "model directory, or mini, moonlight-9l or v3-slice")
      ->required();
  cmd->add_option("--rounds", o->bench.rounds, "measurements of the memory, whose median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  cmd->add_flag("--json", o->json, "one JSON document on standard output");
  cmd->callback([o] {
    if (!o->json) log_info("measuring; a few seconds without other work on the machine");
    const Diagnosis d = bench::diagnose(o->bench);
    const std::vector<std::string> advice = bench::advice(d);
    o->json ? print_json(d, advice) : print_text(d, advice);
  });
}

}  // namespace minke

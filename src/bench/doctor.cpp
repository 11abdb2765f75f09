#include "bench/doctor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "bench/bandwidth.h"
#include "bench/models.h"
#include "model/latent_cache.h"
#include "ops/limits.h"

namespace minke::bench {
namespace {

constexpr Index kPrompt = 512;  // tokens of the prompt whose speed is bounded

Footing footing(const ModelConfig& c, LinearStorage storage) {
  return {storage, weight_bytes(c, storage, Compute::Bf16),
          static_cast<double>(cache_bytes_per_token(c, cache_dtype(Compute::Bf16)))};
}

std::vector<NodeInUse> nodes_in_use() {
  std::vector<NodeInUse> homes;
  if (n_homes() > 1)
    for (Index home = 0; home < n_homes(); ++home) {
      const TopologyNode& node = topology().nodes()[static_cast<std::size_t>(home)];
      homes.push_back({node.number, cpu_list_text(node.cpus), n_threads_of_home(home)});
    }
  return homes;
}

}  // namespace

bool Diagnosis::fits(const Footing& f) const {
  return needed_bytes(f, 0) <= static_cast<double>(memory.available_bytes);
}

double Diagnosis::decode_bound(const Footing& f, Index context) const {
  return bandwidth.rate() / (f.weights.per_token + f.cache_of_token * static_cast<double>(context));
}

Diagnosis diagnose(const DoctorBench& bench) {
  Diagnosis d;
  d.model = summarize_model(bench.model);
  const ModelConfig& c = d.model.config;
  d.stored = footing(c, d.model.storage);
  const bool is_fp8 = d.model.storage == LinearStorage::E4m3;
  d.converted = footing(c, is_fp8 ? LinearStorage::Plain : LinearStorage::E4m3);
  d.cpu = cpu_features();
  d.isa = chosen_isa();
  d.threads = n_threads();
  d.cores = available_cores();
  d.memory = read_machine_memory();
  d.homes = nodes_in_use();
  d.bandwidth = bandwidth_results({.rounds = bench.rounds, .mib = bench.mib}).front();
  d.product_flop_per_s = product_limit(Compute::Bf16);
  d.flop_of_prompt_token = prefill_flop(c, kPrompt) / kPrompt;
  return d;
}

std::vector<std::string> advice(const Diagnosis& d) {
  const Footing &now = d.stored, &other = d.converted;
  const bool is_plain = now.storage == LinearStorage::Plain;
  std::vector<std::string> all;
  if (d.memory.available_bytes > 0 && !d.fits(now)) {
    const double missing = d.needed_bytes(now, 0) - static_cast<double>(d.memory.available_bytes);
    std::string line = fmt::format(
        "More memory: {} are missing. Without them the weights come from disk or swap with every "
        "token, many times slower than the bound above.",
        bytes_text(missing));
    if (static_cast<double>(d.memory.total_bytes) >= d.needed_bytes(now, 0))
      line += " The machine has them: end other programs first.";
    all.push_back(line);
  }
  if (is_plain) {
    const double faster = now.weights.per_token / other.weights.per_token;
    all.push_back(fmt::format(
        "FP8 instead of BF16 (`minke convert`): {} instead of {} of memory, and up to {:.1f} times "
        "the tokens/s.{}",
        bytes_text(other.weights.held), bytes_text(now.weights.held), faster,
        !d.fits(now) && d.fits(other) ? " Then it fits." : ""));
  }
  if (d.threads < d.cores)
    all.push_back(
        fmt::format("All {} cores: only {} threads are in use (--threads).", d.cores, d.threads));
  if (d.isa < available_isas().back())
    all.push_back(fmt::format("The instruction set: {} was forced (--isa), {} is here.",
                              name_of(d.isa), name_of(available_isas().back())));
  if (!d.cpu.amx)
    all.push_back(
        d.cpu.avx512
            ? "For long prompts, a processor with AMX: its matrix unit multiplies BF16 more than "
              "ten "
              "times faster than AVX-512. Decoding one sequence gains little; memory bounds it."
            : "For long prompts, a processor with AVX-512 or better AMX. Decoding one sequence "
              "gains "
              "little; memory bounds it.");
  if (d.memory.huge_pages == "never")
    all.push_back(
        "Huge pages: the system never gives them. Write \"madvise\" to "
        "/sys/kernel/mm/transparent_hugepage/enabled; reading is about a fifth faster with them.");
  if (d.memory.swap_bytes > d.memory.swap_free_bytes)
    all.push_back(fmt::format(
        "Memory for what else runs: {} are in swap already.",
        bytes_text(static_cast<double>(d.memory.swap_bytes - d.memory.swap_free_bytes))));
  const std::size_t used = std::max<std::size_t>(d.homes.size(), 1);
  if (used < d.memory.nodes.size())
    all.push_back(fmt::format(
        "NUMA: {} of the {} nodes {} in use; on cores of all of them, with a thread for each at "
        "least, every node holds a share of the weights and its threads read that.",
        used, d.memory.nodes.size(), used == 1 ? "is" : "are"));
  if (d.model.config.n_routed_experts > 0)
    all.push_back(
        "For more users at once: sequences decoded together share the weights that they read "
        "(`minke bench decode --sequences 8`).");
  return all;
}

}  // namespace minke::bench

// minke bench: how near the kernels come to what this machine can do.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/threads.h"
#include "bench/gemm.h"
#include "bench/train.h"
#include "cli/commands.h"
#include "ops/isa.h"
#include "ops/limits.h"

namespace minke {
namespace {

using bench::Bound;

nlohmann::ordered_json machine() {
  const CpuFeatures& cpu = cpu_features();
  return {{"processor", cpu.model},
          {"isa", name_of(chosen_isa())},
          {"amx", cpu.amx},
          {"avx512_bf16", cpu.avx512_bf16},
          {"threads", n_threads()},
          {"cores", available_cores()},
          {"bf16_limit", bf16_limit_name()}};
}

void print_json(const std::vector<bench::Result>& results) {
  nlohmann::ordered_json j;
  j["machine"] = machine();
  for (const bench::Result& r : results)
    j["results"].push_back({{"name", r.name},
                            {"shape", r.shape},
                            {"form", r.form},
                            {"threads", r.threads},
                            {"seconds", r.seconds},
                            {"spread", r.spread},
                            {"bytes", r.bytes},
                            {"flop", r.flop},
                            {"limit", r.limit},
                            {"share", r.share},
                            {"tokens_per_s", r.tokens / r.seconds}});
  fmt::print("{}\n", j.dump(2));
}

void print_table(const std::vector<bench::Result>& results) {
  const CpuFeatures& cpu = cpu_features();
  fmt::print("{}, {} of {} cores, {}; BF16 limit: {}{}\n", cpu.model, n_threads(),
             available_cores(), name_of(chosen_isa()), bf16_limit_name(),
             cpu.amx ? "" : " (no AMX here)");
  fmt::print("{:<19}{:<21}{:<6}{:>12}{:>8}{:>18}{:>18}{:>7}\n", "what", "shape", "form", "time",
             "spread", "rate", "limit", "share");
  for (const bench::Result& r : results) {
    const bool flop = r.bound == Bound::Flop;
    const auto rate = [&](double v) {
      return flop ? fmt::format("{:.3f} TFLOP/s", v / 1e12) : fmt::format("{:.1f} GB/s", v / 1e9);
    };
    fmt::print("{:<19}{:<21}{:<6}{:>9.1f} us{:>6.0f} %{:>18}{:>18}{:>5.0f} %{}\n", r.name, r.shape,
               r.form, r.seconds * 1e6, r.spread * 100, rate(r.rate()), rate(r.limit),
               r.share * 100,
               r.tokens > 0 ? fmt::format("  {:.0f} tokens/s", r.tokens / r.seconds) : "");
  }
}

// Adds a subcommand that measures and prints; `run` gives its results.
template <class Settings, class Run>
CLI::App* add_measurement(CLI::App& bench, const char* name, const char* what,
                          const std::shared_ptr<Settings>& settings, Run run) {
  CLI::App* cmd = bench.add_subcommand(name, what);
  const auto json = std::make_shared<bool>(false);
  cmd->add_option("--rounds", settings->rounds, "measurements of each line, whose median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  cmd->add_flag("--json", *json, "one JSON document on standard output");
  cmd->callback([settings, json, run] {
    if (!*json) log_info("measuring; about a minute without other work on the machine");
    const std::vector<bench::Result> results = run(*settings);
    *json ? print_json(results) : print_table(results);
  });
  return cmd;
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "measures kernels against this machine's limits");
  bench->require_subcommand(1);

  const auto gemm = std::make_shared<bench::GemmBench>();
  add_measurement(*bench, "gemm", "matrix products; the limits are measured in turn with them",
                  gemm, bench::gemm_results)
      ->add_option("--smaller", gemm->smaller, "divides rows and bytes read, for a quick look")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();

  const auto train = std::make_shared<bench::TrainBench>();
  CLI::App* cmd = add_measurement(*bench, "train", "steps of training, with random tokens", train,
                                  bench::train_results);
  cmd->add_option("--model", train->model, "mini, moonlight-9l or v3-slice")->capture_default_str();
  cmd->add_option("--batch", train->batch, "sequences of a step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  cmd->add_option("--sequence", train->sequence, "tokens of a sequence")
      ->check(CLI::Range(2, 4096))
      ->capture_default_str();
  cmd->add_option("--compute", train->compute, "bf16 or fp32")->capture_default_str();
}

}  // namespace minke

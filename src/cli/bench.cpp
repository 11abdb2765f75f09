// minke bench: how near the kernels come to what this machine can do.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/attention.h"
#include "bench/bandwidth.h"
#include "bench/gemm.h"
#include "bench/generation.h"
#include "bench/moe.h"
#include "bench/serving.h"
#include "bench/train.h"
#include "cli/bench_accumulation.h"
#include "cli/bench_doctor.h"
#include "cli/bench_output.h"
#include "cli/commands.h"

namespace minke {
namespace {

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
    if (*json)
      fmt::print("{}\n", results_json(results).dump(2));
    else
      print_results(results);
  });
  return cmd;
}

void add_model_options(CLI::App& cmd, bench::ModelChoice& choice, const char* models) {
  cmd.add_option("--model", choice.model, models)->capture_default_str();
  cmd.add_option("--compute", choice.compute, "bf16, fp8 or fp32")->capture_default_str();
  cmd.add_option("--weights", choice.weights,
                 "of a benchmark model: fp8, bf16, int4, or auto (fp8, with --compute fp32 FP32)")
      ->capture_default_str();
}

void add_cache_option(CLI::App& cmd, std::string& dtype, const char* what) {
  cmd.add_option("--cache-dtype", dtype, what)
      ->check(CLI::IsMember({"auto", "bf16", "fp8", "fp32"}))
      ->capture_default_str();
}

constexpr const char* kCacheDtype = "rows of the latent cache: auto, bf16, fp8 or fp32";
constexpr const char* kAnyModel = "mini, moonlight-9l, v3-slice or a model directory";

void add_memory_benches(CLI::App& bench) {
  const auto bandwidth = std::make_shared<bench::BandwidthBench>();
  add_measurement(bench, "bandwidth", "reading, copying and updating memory", bandwidth,
                  bench::bandwidth_results)
      ->add_option("--mib", bandwidth->mib, "MiB in a pass: more than the caches hold")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  add_bench_doctor(bench);
}

void add_generation_benches(CLI::App& bench) {
  const auto decode = std::make_shared<bench::DecodeBench>();
  CLI::App* cmd = add_measurement(bench, "decode", "tokens/s of generation, one token a step",
                                  decode, bench::decode_results);
  add_model_options(*cmd, decode->choice, kAnyModel);
  add_cache_option(*cmd, decode->choice.cache, kCacheDtype);
  cmd->add_option("--context", decode->context, "tokens in each latent cache before")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  cmd->add_option("--sequences", decode->sequences, "decoded together")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  cmd->add_option("--steps", decode->steps, "steps of a measurement")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();

  const auto prefill = std::make_shared<bench::PrefillBench>();
  cmd = add_measurement(bench, "prefill", "tokens/s of reading a prompt", prefill,
                        bench::prefill_results);
  add_model_options(*cmd, prefill->choice, kAnyModel);
  cmd->add_option("--tokens", prefill->tokens, "of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

void add_serving_bench(CLI::App& bench) {
  const auto serving = std::make_shared<bench::ServingBench>();
  CLI::App* cmd =
      add_measurement(bench, "serve", "the batch engine: streams, long prompts, prefixes, drafts",
                      serving, bench::serving_results);
  add_model_options(*cmd, serving->choice, kAnyModel);
  add_cache_option(*cmd, serving->choice.cache, kCacheDtype);
  cmd->add_option("--streams", serving->streams, "generated together, a line each")
      ->check(CLI::Range(1, 4096))
      ->delimiter(',')
      ->capture_default_str();
  cmd->add_option("--tokens", serving->tokens, "that each stream generates")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--prompt", serving->prompt, "tokens, of the time to the first token")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--modules", serving->modules,
                  "random MTP modules of a benchmark model: what drafts cost, not what they gain")
      ->check(CLI::Range(0, 1))
      ->capture_default_str();
}

void add_layer_benches(CLI::App& bench) {
  const auto attention = std::make_shared<bench::AttentionBench>();
  CLI::App* cmd = add_measurement(bench, "attention", "prefill, training and decode attention",
                                  attention, bench::attention_results);
  cmd->add_option("--smaller", attention->smaller, "divides lengths, for a quick look")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  add_cache_option(*cmd, attention->cache,
                   "rows of the latent cache that decoding compares with bf16");

  const auto moe = std::make_shared<bench::MoeBench>();
  cmd = add_measurement(bench, "moe", "one MoE layer for few and many tokens", moe,
                        bench::moe_results);
  add_model_options(*cmd, moe->choice, "mini, moonlight-9l or v3-slice");
  cmd->add_option("--tokens", moe->tokens, "of each measurement")
      ->check(CLI::Range(1, 1 << 16))
      ->delimiter(',')
      ->capture_default_str();
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
  cmd->add_option("--compute", train->compute, "bf16, fp8 or fp32")->capture_default_str();
  cmd->add_option("--fp8-scales", train->fp8_scales, "of --compute fp8")
      ->check(CLI::IsMember({"power_of_two", "float"}))
      ->capture_default_str();

  add_memory_benches(*bench);
  add_generation_benches(*bench);
  add_serving_bench(*bench);
  add_layer_benches(*bench);
  add_bench_accumulation(*bench);
}

}  // namespace minke

#include "cli/bench_output.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/threads.h"
#include "ops/isa.h"
#include "ops/limits.h"

namespace minke {
namespace {

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

}  // namespace

nlohmann::ordered_json results_json(const std::vector<bench::Result>& results) {
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
                            {"bound", r.bound == bench::Bound::Flop ? "flop" : "bytes"},
                            {"limit", r.limit},
                            {"share", r.share},
                            {"tokens_per_s", r.tokens / r.seconds},
                            {"note", r.note}});
  return j;
}

void print_results(const std::vector<bench::Result>& results) {
  const CpuFeatures& cpu = cpu_features();
  fmt::print("{}, {} of {} cores, {}; BF16 limit: {}{}\n", cpu.model, n_threads(),
             available_cores(), name_of(chosen_isa()), bf16_limit_name(),
             cpu.amx ? "" : " (no AMX here)");
  fmt::print("{:<23}{:<21}{:<6}{:>12}{:>8}{:>18}{:>18}{:>7}\n", "what", "shape", "form", "time",
             "spread", "rate", "limit", "share");
  for (const bench::Result& r : results) {
    const bool flop = r.bound == bench::Bound::Flop;
    const auto rate = [&](double v) {
      return flop ? fmt::format("{:.3f} TFLOP/s", v / 1e12) : fmt::format("{:.1f} GB/s", v / 1e9);
    };
    fmt::print("{:<23}{:<21}{:<6}{:>9.1f} us{:>6.0f} %{:>18}{:>18}{:>5.0f} %{}{}\n", r.name,
               r.shape, r.form, r.seconds * 1e6, r.spread * 100, rate(r.rate()), rate(r.limit),
               r.share * 100,
               r.tokens > 0 ? fmt::format("  {:.1f} tokens/s", r.tokens / r.seconds) : "",
               r.note.empty() ? "" : "  " + r.note);
  }
}

}  // namespace minke

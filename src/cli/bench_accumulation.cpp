// minke bench accumulation: the error of sums in about 14 bits, with and without promotion.
#include "cli/bench_accumulation.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/accumulation.h"

namespace minke {
namespace {

void print_json(const bench::AccumulationBench& settings,
                const std::vector<bench::AccumulationError>& errors) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const bench::AccumulationError& e : errors)
    results.push_back({{"elements", bench::name_of(e.elements)},
                       {"k", e.k},
                       {"fp32", e.fp32},
                       {"limited", e.limited},
                       {"promoted", e.promoted}});
  const nlohmann::ordered_json json = {{"bits", settings.bits},
                                       {"promote_every", settings.promote_every},
                                       {"side", settings.side},
                                       {"results", results}};
  fmt::print("{}\n", json.dump(2));
}

void print_table(const bench::AccumulationBench& settings,
                 const std::vector<bench::AccumulationError>& errors) {
  fmt::print(
      "largest error of a {0} x {0} product of E4M3 values, of the root mean square of its "
      "elements\n",
      settings.side);
  fmt::print("{:<10}{:>8}{:>14}{:>14}{:>20}\n", "elements", "K", "FP32",
             fmt::format("{} bits", settings.bits),
             fmt::format("promoted every {}", settings.promote_every));
  for (const bench::AccumulationError& e : errors)
    fmt::print("{:<10}{:>8}{:>12.5f} %{:>12.3f} %{:>18.3f} %\n", bench::name_of(e.elements), e.k,
               100 * e.fp32, 100 * e.limited, 100 * e.promoted);
}

}  // namespace

void add_bench_accumulation(CLI::App& bench) {
  CLI::App* cmd = bench.add_subcommand(
      "accumulation", "a model of tensor cores' sums in 14 bits, and of their promotion to FP32");
  const auto settings = std::make_shared<bench::AccumulationBench>();
  const auto json = std::make_shared<bool>(false);
  cmd->add_option("--k", settings->k, "lengths of sums, a line each")
      ->check(CLI::Range(1, 1 << 20))
      ->delimiter(',')
      ->capture_default_str();
  cmd->add_option("--side", settings->side, "rows and columns of the product")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  cmd->add_option("--bits", settings->bits, "binary digits that alignment keeps")
      ->check(CLI::Range(2, 24))
      ->capture_default_str();
  cmd->add_flag("--json", *json, "one JSON document on standard output");
  cmd->callback([settings, json] {
    const auto errors = bench::accumulation_errors(*settings);
    if (*json)
      print_json(*settings, errors);
    else
      print_table(*settings, errors);
  });
}

}  // namespace minke

#include "plan/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/function_ref.h"

namespace minke {
namespace {

using Json = nlohmann::json;
using Choose = FunctionRef<bool(const BenchLine&)>;

const Json& member(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object() || !object.contains(key))
    throw FormatError(fmt::format(
        "{}: there is no {}; expected the output of `minke bench gemm --json`", where, key));
  return object.at(key);
}

std::string text(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_string())
    throw FormatError(
        fmt::format("{}: {} is a {}, but must be text", where, key, value.type_name()));
  return value.get<std::string>();
}

double number(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key, where);
  const double n = value.is_number() ? value.get<double>() : -1;
  if (!(n >= 0 && std::isfinite(n)))
    throw FormatError(fmt::format("{}: {} is {}, but must be a number of at least 0", where, key,
                                  value.is_structured() ? value.type_name() : value.dump()));
  return n;
}

bool starts(const BenchLine& line, const char* name) {
  return line.name.rfind(name, 0) == 0;
}

std::vector<BenchLine> chosen(const std::vector<BenchLine>& lines, Choose choose) {
  std::vector<BenchLine> some;
  std::copy_if(lines.begin(), lines.end(), std::back_inserter(some), choose);
  return some;
}

double median_limit(const std::vector<BenchLine>& lines) {
  std::vector<double> limits;
  for (const BenchLine& line : lines)
    if (line.limit > 0) limits.push_back(line.limit);
  if (limits.empty()) return 0;
  const auto middle = limits.begin() + static_cast<std::ptrdiff_t>(limits.size() / 2);
  std::nth_element(limits.begin(), middle, limits.end());
  return *middle;
}

// Of the limit, weighted by the work; 0 when there are no such lines. Noise may lift a line above
// its limit: at most 1.
double mean_share(const std::vector<BenchLine>& lines) {
  double work = 0, ideal = 0;
  for (const BenchLine& line : lines) {
    if (!(line.share > 0)) continue;
    const double done = line.flop > 0 ? line.flop : line.bytes;
    work += done;
    ideal += done / line.share;
  }
  return ideal > 0 ? std::min(1.0, work / ideal) : 0;
}

// Relative least squares of  seconds = weights / (bandwidth e) + flop / (peak e')  over the layers
// of experts that were measured with several rows. Shares stay within (0, 1].
void fit_experts(const std::vector<BenchLine>& lines, const Cluster& c, Efficiency& e) {
  double bb = 0, bf = 0, ff = 0, b = 0, f = 0;
  for (const BenchLine& line : lines) {
    if (!(line.seconds > 0) || line.shape == "1") continue;
    const double x = line.bytes / c.memory_bytes_per_s / line.seconds;
    const double y = line.flop / c.peak_bf16_flops_per_s / line.seconds;
    bb += x * x, bf += x * y, ff += y * y, b += x, f += y;
  }
  const double determinant = bb * ff - bf * bf;
  if (!(determinant > 1e-9 * bb * ff)) return;  // fewer than two different lines
  const double slower_weights = std::max(1.0, (b * ff - f * bf) / determinant);
  const double slower_products = std::max(1.0, (f - slower_weights * bf) / ff);
  e.moe_weights = 1 / slower_weights;
  e.moe_products = 1 / slower_products;
}

void check_same_machine(const std::vector<BenchRun>& runs) {
  for (const BenchRun& run : runs)
    if (run.processor != runs[0].processor || run.isa != runs[0].isa ||
        run.threads != runs[0].threads)
      throw ConfigError(fmt::format(
          "the benchmarks are of different machines: {} ({}, {} threads) and {} ({}, {} threads)",
          runs[0].processor, runs[0].isa, runs[0].threads, run.processor, run.isa, run.threads));
}

double needed(double value, const char* what) {
  if (!(value > 0))
    throw ConfigError(
        fmt::format("the benchmarks have no line of {}; `minke bench gemm --json` has", what));
  return value;
}

}  // namespace

BenchRun parse_bench(const std::string& content, const std::string& where) {
  Json file;
  try {
    file = Json::parse(content);
  } catch (const Json::exception& e) {
    throw FormatError(fmt::format("{}: not valid JSON: {}", where, e.what()));
  }
  BenchRun run;
  const Json& machine = member(file, "machine", where);
  run.processor = text(machine, "processor", where + ": machine");
  run.isa = text(machine, "isa", where + ": machine");
  const double threads = number(machine, "threads", where + ": machine");
  if (!(threads >= 1 && threads <= 1 << 20))
    throw FormatError(
        fmt::format("{}: threads is {}, but must be from 1 to {}", where, threads, 1 << 20));
  run.threads = static_cast<Index>(threads);
  const Json& results = member(file, "results", where);
  if (!results.is_array())
    throw FormatError(
        fmt::format("{}: results is a {}, but must be a list", where, results.type_name()));
  std::string whole;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const std::string at = fmt::format("{}: results[{}]", where, i);
    BenchLine line;
    line.name = text(results[i], "name", at);
    if (line.name.rfind("  ", 0) == 0)
      line.name = whole + line.name;
    else
      whole = line.name;
    line.shape = text(results[i], "shape", at);
    line.form = text(results[i], "form", at);
    line.seconds = number(results[i], "seconds", at);
    line.bytes = number(results[i], "bytes", at);
    line.flop = number(results[i], "flop", at);
    line.limit = number(results[i], "limit", at);
    line.share = number(results[i], "share", at);
    run.lines.push_back(std::move(line));
  }
  return run;
}

Cluster calibrated_cluster(const std::vector<BenchRun>& runs, double memory_bytes,
                           double price_per_device_hour) {
  if (runs.empty()) throw ConfigError("there are no benchmarks to calibrate by");
  check_same_machine(runs);
  std::vector<BenchLine> lines;
  for (const BenchRun& run : runs) lines.insert(lines.end(), run.lines.begin(), run.lines.end());
  const auto of = [&](const char* name, const char* form) {
    return chosen(lines, [&](const BenchLine& l) { return l.name == name && l.form == form; });
  };
  const auto beginning = [&](const char* name) {
    return chosen(lines, [&](const BenchLine& l) { return starts(l, name); });
  };
  const std::vector<BenchLine> bf16 = of("linear", "bf16"), fp32 = of("linear", "fp32");
  const std::vector<BenchLine> gradients = chosen(lines, [](const BenchLine& l) {
    return (l.name == "gradient" || l.name == "gradient experts") && l.form == "bf16";
  });
  const auto one_row = [&](const char* form) {
    return chosen(lines, [&](const BenchLine& l) {
      return l.name == "linear from memory" && l.shape.rfind("1 x ", 0) == 0 && l.form == form;
    });
  };
  const std::vector<BenchLine> rows = one_row("bf16");

  Cluster c;
  c.name = runs[0].processor;
  c.source = fmt::format("measured by minke bench: {}, {} threads, one device without links",
                         runs[0].isa, runs[0].threads);
  c.devices = c.devices_per_node = 1;
  c.compute_units = runs[0].threads;
  c.peak_bf16_flops_per_s = needed(median_limit(bf16), "\"linear\" in bf16");
  c.memory_bytes = memory_bytes;
  for (const BenchLine& line : lines)  // with all threads, not with one
    if (line.name == "read bandwidth")
      c.memory_bytes_per_s = std::max(c.memory_bytes_per_s, line.limit);
  if (c.memory_bytes_per_s == 0)
    c.memory_bytes_per_s = needed(median_limit(rows), "\"linear from memory\" of one row");
  c.link_inside_bytes_per_s = c.link_between_bytes_per_s = c.memory_bytes_per_s;
  c.price_per_device_hour = price_per_device_hour;

  Efficiency& e = c.efficiency;
  e.products = needed(mean_share(bf16), "\"linear\" in bf16");
  e.experts = mean_share(of("linear experts", "bf16"));
  e.gradients = mean_share(gradients);
  const auto attention_in = [&](const char* form) {
    return chosen(lines, [&](const BenchLine& l) {
      return starts(l, "attention ") && !starts(l, "attention decode") && l.flop > 0 &&
             l.form == form;
    });
  };
  // As a step in BF16 computes it; else what is nearest to that.
  std::vector<BenchLine> like_attention = attention_in("bf16");
  if (like_attention.empty()) like_attention = attention_in("fp32");
  if (like_attention.empty()) like_attention = fp32;
  e.attention = std::min(
      1.0, mean_share(like_attention) * median_limit(like_attention) / c.peak_bf16_flops_per_s);
  e.memory = needed(mean_share(beginning("pack")), "\"pack\"");
  e.weights = mean_share(rows);
  e.weights_fp8 = mean_share(one_row("e4m3"));
  e.products_fp8 = mean_share(
      chosen(lines, [](const BenchLine& l) { return l.name == "linear" && l.form == "e4m3"; }));
  fit_experts(beginning("moe "), c, e);
  return c;
}

}  // namespace minke

// What the subcommands of `plan` have in common: a model, a cluster, a layout, and their output as
// a table or as JSON.
#pragma once
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/options.h"
#include "page/html.h"
#include "plan/phase_times.h"

namespace minke {

struct PlanInputs {
  std::string model = "deepseek-v3";
  std::string cluster = "h800x2048";
  Layout layout;
  bool json = false;
};

enum class PlanFlags { Model, Cluster, Layout };

// Adds --json, --model, and from Cluster on --cluster, for Layout the layout's flags as well.
inline void add_plan_flags(CLI::App& command, PlanInputs& inputs, PlanFlags flags) {
  command.add_option("--model", inputs.model, "a known model, or a directory with config.json")
      ->capture_default_str();
  if (flags != PlanFlags::Model)
    command
        .add_option("--cluster", inputs.cluster,
                    "h800x2048, h100, h200, b200, cpu, NAMExDEVICES, or a .json file")
        ->capture_default_str();
  if (flags == PlanFlags::Layout) add_flags(command, OptionList(inputs.layout));
  command.add_flag("--json", inputs.json, "one JSON document on standard output");
}

// Efficiencies of phases: a flag, else what the cluster file measured, else the assumed ones.
struct PhaseFlags {
  std::optional<double> fp8, bf16, attention, link, memory;

  template <class Visitor>
  void visit(Visitor& field) {
    const PhaseSettings assumed;
    const auto share = [&](const char* name, std::optional<double>& value, const char* of,
                           double otherwise) {
      field(name, value,
            fmt::format("share of the {} (default: the cluster file's, else {:g}, assumed)", of,
                        otherwise),
            between(0.001, 1));
    };
    share("fp8-efficiency", fp8, "FP8 peak that products reach", assumed.fp8_efficiency);
    share("bf16-efficiency", bf16, "BF16 peak that products reach", assumed.bf16_efficiency);
    share("attention-efficiency", attention, "BF16 peak that attention reaches",
          assumed.attention_efficiency);
    share("link-efficiency", link, "cluster's bandwidths", assumed.link_efficiency);
    share("memory-efficiency", memory, "memory bandwidth", assumed.memory_efficiency);
  }

  PhaseSettings settings(const Cluster& cluster) const {
    PhaseSettings s = phase_settings(cluster);
    s.fp8_efficiency = fp8.value_or(s.fp8_efficiency);
    s.bf16_efficiency = bf16.value_or(s.bf16_efficiency);
    s.attention_efficiency = attention.value_or(s.attention_efficiency);
    s.link_efficiency = link.value_or(s.link_efficiency);
    s.memory_efficiency = memory.value_or(s.memory_efficiency);
    return s;
  }
};

// Columns as wide as their longest cell; text to the left in the first one, numbers to the right.
inline void print_table(const page::Table& table) {
  std::vector<std::size_t> widths;
  for (const std::string& name : table.columns) widths.push_back(name.size());
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  const auto print_row = [&](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size(); ++i)
      i == 0 ? fmt::print("{:<{}}", row[i], widths[i]) : fmt::print("  {:>{}}", row[i], widths[i]);
    fmt::print("\n");
  };
  print_row(table.columns);
  for (const auto& row : table.rows) print_row(row);
}

inline void print_json(const nlohmann::ordered_json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

inline nlohmann::ordered_json layout_json(Layout layout) {
  return options_to_json(OptionList(layout));
}

inline std::string count_text(double n) {
  if (n >= 1e9) return fmt::format("{:.3f} B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.3f} M", n / 1e6);
  return fmt::format("{:.0f}", n);
}

inline std::string bytes_text(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  int u = 0;
  while (bytes >= 1000 && u < 5) bytes /= 1000, ++u;
  return u == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, units[u]);
}

// Each adds its subcommands.
void add_plan_cost(CLI::App& plan);
void add_plan_time(CLI::App& plan);
void add_plan_calibrate(CLI::App& plan);
void add_plan_serve(CLI::App& plan);
void add_plan_search(CLI::App& plan);
void add_plan_generate(CLI::App& plan);

}  // namespace minke

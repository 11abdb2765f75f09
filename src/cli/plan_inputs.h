// What the subcommands of `plan` have in common: a model, a cluster, a layout, and their output as
// a table or as JSON.
#pragma once
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/options.h"
#include "plan/layout.h"

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
void add_plan_serve(CLI::App& plan);
void add_plan_search(CLI::App& plan);

}  // namespace minke

// minke plan eplb: expert placement from measured loads.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "cli/plan.h"
#include "parallel/expert_placement.h"

namespace minke {
namespace {

struct Loads {
  std::vector<std::vector<float>> weight;  // [layers][experts]
  PlacementShape shape;
};

std::int64_t whole_number(const nlohmann::json& file, const char* key, const std::string& path) {
  const auto found = file.find(key);
  if (found == file.end())
    throw FormatError(fmt::format("{}: there is no {}; expected a whole number", path, key));
  if (!found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<std::uint64_t>() > INT64_MAX))
    throw FormatError(fmt::format("{}: {} is {}, but must be a whole number", path, key,
                                  found->is_structured() ? found->type_name() : found->dump()));
  return found->get<std::int64_t>();
}

std::vector<float> layer_loads(const nlohmann::json& row, std::size_t layer,
                               const std::string& path) {
  if (!row.is_array())
    throw FormatError(fmt::format("{}: weight[{}] is a {}, but must be a list of loads", path,
                                  layer, row.type_name()));
  std::vector<float> loads;
  for (const nlohmann::json& value : row) {
    if (!value.is_number())
      throw FormatError(fmt::format("{}: weight[{}][{}] is a {}, but must be a number", path, layer,
                                    loads.size(), value.type_name()));
    loads.push_back(static_cast<float>(value.get<double>()));
  }
  return loads;
}

Loads read_loads(const std::string& path) {
  nlohmann::json file;
  try {
    file = nlohmann::json::parse(read_file(path, std::size_t{1} << 28));
  } catch (const nlohmann::json::exception& e) {
    throw FormatError(fmt::format("{}: not valid JSON: {}", path, e.what()));
  }
  if (!file.is_object())
    throw FormatError(
        fmt::format("{}: is a {}, but must be an object with weight, num_replicas, "
                    "num_groups, num_nodes and num_gpus",
                    path, file.type_name()));
  Loads loads;
  loads.shape = {.n_replicas = whole_number(file, "num_replicas", path),
                 .n_groups = whole_number(file, "num_groups", path),
                 .n_nodes = whole_number(file, "num_nodes", path),
                 .n_gpus = whole_number(file, "num_gpus", path)};
  const auto weight = file.find("weight");
  if (weight == file.end() || !weight->is_array() || weight->empty())
    throw FormatError(
        fmt::format("{}: weight must be a list of layers, each a list of loads", path));
  for (const nlohmann::json& row : *weight) {
    loads.weight.push_back(layer_loads(row, loads.weight.size(), path));
    if (loads.weight.back().size() != loads.weight.front().size())
      throw FormatError(fmt::format("{}: weight[{}] has {} experts, but weight[0] has {}", path,
                                    loads.weight.size() - 1, loads.weight.back().size(),
                                    loads.weight.front().size()));
  }
  check_placement_shape(loads.shape, static_cast<Index>(loads.weight.front().size()));
  const auto policy = file.find("policy");
  if (policy != file.end() && *policy != name_of(loads.shape.policy()))
    throw ConfigError(fmt::format("{}: policy is {}, but {} groups on {} nodes give {}", path,
                                  policy->is_structured() ? policy->type_name() : policy->dump(),
                                  loads.shape.n_groups, loads.shape.n_nodes,
                                  name_of(loads.shape.policy())));
  return loads;
}

void print_json(const std::vector<ExpertPlacement>& layers) {
  std::size_t most = 0;  // replicas of one expert, in any layer
  for (const ExpertPlacement& p : layers)
    for (const auto& slots : p.logical_to_physical) most = std::max(most, slots.size());
  nlohmann::ordered_json j;
  for (const char* key : {"physical_to_logical_map", "logical_to_physical_map", "expert_count"})
    j[key] = nlohmann::json::array();
  for (const ExpertPlacement& p : layers) {
    nlohmann::ordered_json slots_of = nlohmann::json::array();
    for (std::vector<int> slots : p.logical_to_physical) {
      slots.resize(most, -1);
      slots_of.push_back(slots);
    }
    j["physical_to_logical_map"].push_back(p.physical_to_logical);
    j["logical_to_physical_map"].push_back(std::move(slots_of));
    j["expert_count"].push_back(p.expert_count);
  }
  fmt::print("{}\n", j.dump());
}

void print_table(const Loads& loads, const std::vector<ExpertPlacement>& layers) {
  const PlacementShape& s = loads.shape;
  fmt::print("{} experts in {} slots on {} GPUs of {} nodes, {} groups: {} policy\n\n",
             loads.weight.front().size(), s.n_replicas, s.n_gpus, s.n_nodes, s.n_groups,
             name_of(s.policy()));
  fmt::print("{:>6}{:>16}{:>16}{:>24}{:>15}\n", "layer", "before", "after", "most replicas",
             "experts > 1");
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const ExpertPlacement& p = layers[layer];
    const auto hottest = std::max_element(p.expert_count.begin(), p.expert_count.end());
    fmt::print(
        "{:>6}{:>15.3f}x{:>15.3f}x{:>24}{:>15}\n", layer,
        gpu_imbalance_unplaced(loads.weight[layer], s.n_gpus),
        gpu_imbalance(loads.weight[layer], p, s.n_gpus),
        fmt::format("{} of expert {}", *hottest, hottest - p.expert_count.begin()),
        std::count_if(p.expert_count.begin(), p.expert_count.end(), [](int n) { return n > 1; }));
  }
  fmt::print(
      "\nbefore, after: load of the fullest GPU over the mean; before is every expert once, in "
      "order of its index\n");
}

void run_eplb(const std::string& path, bool json) {
  const Loads loads = read_loads(path);
  std::vector<ExpertPlacement> layers;
  for (std::size_t layer = 0; layer < loads.weight.size(); ++layer) {
    try {
      layers.push_back(place_experts(loads.weight[layer], loads.shape));
    } catch (const ConfigError& e) {
      throw ConfigError(fmt::format("{}: layer {}: {}", path, layer, e.what()));
    }
  }
  json ? print_json(layers) : print_table(loads, layers);
}

}  // namespace

void add_plan_eplb(CLI::App& plan) {
  CLI::App* cmd =
      plan.add_subcommand("eplb", "Which GPU holds which expert, and how often, from loads");
  const auto path = std::make_shared<std::string>();
  const auto json = std::make_shared<bool>(false);
  cmd->add_option("--loads", *path,
                  "JSON object: weight [layers][experts], num_replicas, num_groups, num_nodes, "
                  "num_gpus and, if it should be checked, policy")
      ->required();
  cmd->add_flag("--json", *json, "one JSON document on standard output");
  cmd->callback([path, json] { run_eplb(*path, *json); });
}

}  // namespace minke

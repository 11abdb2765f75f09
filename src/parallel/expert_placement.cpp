#include "parallel/expert_placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

constexpr Index kMost = Index{1} << 20;  // experts, replicas, GPUs

struct Packing {
  std::vector<std::size_t> pack;  // [items] where each item goes
  std::vector<std::size_t> rank;  // [items] its place there
};

Packing pack_evenly(const std::vector<float>& load, std::size_t n_packs) {
  const std::size_t n = load.size(), room = n / n_packs;
  Packing p{std::vector<std::size_t>(n), std::vector<std::size_t>(n, 0)};
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (room == 1) {
    p.pack = order;
    return p;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return load[a] > load[b]; });
  using Open = std::pair<float, std::size_t>;  // sum, pack: the least loaded, then the lowest
  std::priority_queue<Open, std::vector<Open>, std::greater<>> open;
  for (std::size_t pack = 0; pack < n_packs; ++pack) open.push({0.0f, pack});
  std::vector<std::size_t> held(n_packs, 0);
  for (const std::size_t item : order) {
    const auto [sum, pack] = open.top();
    open.pop();
    p.pack[item] = pack;
    p.rank[item] = held[pack]++;
    if (held[pack] < room) open.push({sum + load[item], pack});
  }
  return p;
}

struct Replicas {
  std::vector<std::size_t> expert;  // [slots]
  std::vector<int> count;           // [experts]
};

Replicas replicate(const std::vector<float>& load, std::size_t n_slots) {
  const std::size_t n = load.size();
  Replicas r{std::vector<std::size_t>(n), std::vector<int>(n, 1)};
  std::iota(r.expert.begin(), r.expert.end(), 0);
  const auto colder = [](const std::pair<float, std::size_t>& a,
                         const std::pair<float, std::size_t>& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  std::vector<std::pair<float, std::size_t>> each(n);  // load of one replica, expert
  for (std::size_t e = 0; e < n; ++e) each[e] = {load[e], e};
  std::priority_queue hottest(colder, std::move(each));
  while (r.expert.size() < n_slots) {
    const std::size_t e = hottest.top().second;
    hottest.pop();
    r.expert.push_back(e);
    hottest.push({load[e] / static_cast<float>(++r.count[e]), e});
  }
  return r;
}

void check_loads(const std::vector<float>& load) {
  for (std::size_t e = 0; e < load.size(); ++e)
    if (!std::isfinite(load[e]) || load[e] < 0)
      throw ConfigError(fmt::format(
          "the load of expert {} is {}, but must be finite (in binary32) and at least 0", e,
          load[e]));
}

void check_divides(const char* what, Index n, const char* by, Index parts) {
  if (n % parts == 0) return;
  const Index below = n / parts * parts, above = below + parts;
  throw ConfigError(
      fmt::format("{} is {}, but must be a multiple of {} = {}; nearest: {}", what, n, by, parts,
                  below > 0 ? fmt::format("{} or {}", below, above) : fmt::format("{}", above)));
}

double max_over_mean(const std::vector<double>& gpu) {
  const double sum = std::accumulate(gpu.begin(), gpu.end(), 0.0);
  return sum > 0
             ? *std::max_element(gpu.begin(), gpu.end()) / (sum / static_cast<double>(gpu.size()))
             : 1.0;
}

}  // namespace

void check_placement_shape(const PlacementShape& s, Index n_experts) {
  const auto check_range = [](const char* what, Index value) {
    if (value < 1 || value > kMost)
      throw ConfigError(fmt::format("{} is {}, but must be from 1 to {}", what, value, kMost));
  };
  check_range("the number of experts", n_experts);
  check_range("num_replicas", s.n_replicas);
  check_range("num_groups", s.n_groups);
  check_range("num_nodes", s.n_nodes);
  check_range("num_gpus", s.n_gpus);
  check_divides("num_gpus", s.n_gpus, "num_nodes", s.n_nodes);
  check_divides("num_replicas", s.n_replicas, "num_gpus", s.n_gpus);
  if (s.policy() == PlacementPolicy::Hierarchical)
    check_divides("the number of experts", n_experts, "num_groups", s.n_groups);
  if (s.n_replicas < n_experts)
    throw ConfigError(
        fmt::format("num_replicas is {}, but {} experts need at least one slot each; nearest: {}",
                    s.n_replicas, n_experts, (n_experts + s.n_gpus - 1) / s.n_gpus * s.n_gpus));
}

ExpertPlacement place_experts(const std::vector<float>& load, const PlacementShape& s) {
  check_placement_shape(s, static_cast<Index>(load.size()));
  check_loads(load);
  const bool global = s.policy() == PlacementPolicy::Global;
  const auto nodes = static_cast<std::size_t>(global ? 1 : s.n_nodes);
  const auto groups = static_cast<std::size_t>(global ? 1 : s.n_groups);
  const auto slots = static_cast<std::size_t>(s.n_replicas);
  const std::size_t E = load.size(), group_size = E / groups, experts_per_node = E / nodes;
  const std::size_t gpus_per_node = static_cast<std::size_t>(s.n_gpus) / nodes;
  const std::size_t slots_per_node = slots / nodes, slots_per_gpu = slots_per_node / gpus_per_node;

  // 1. Experts in the order of the nodes that their groups go to.
  std::vector<float> group_load(groups, 0.0f);
  for (std::size_t e = 0; e < E; ++e) group_load[e / group_size] += load[e];
  const Packing of_groups = pack_evenly(group_load, nodes);
  std::vector<std::size_t> by_node(E);
  for (std::size_t e = 0; e < E; ++e) {
    const std::size_t g = e / group_size;
    by_node[of_groups.pack[g] * experts_per_node + of_groups.rank[g] * group_size +
            e % group_size] = e;
  }

  ExpertPlacement placement;
  placement.physical_to_logical.resize(slots);
  placement.logical_to_physical.resize(E);
  placement.expert_count.resize(E);
  for (std::size_t node = 0; node < nodes; ++node) {
    // 2. Replicas of this node's experts.
    const auto first = by_node.begin() + static_cast<std::ptrdiff_t>(node * experts_per_node);
    std::vector<float> node_load;
    for (std::size_t i = 0; i < experts_per_node; ++i) node_load.push_back(load[first[i]]);
    const Replicas replicas = replicate(node_load, slots_per_node);

    // 3. Replicas onto GPUs.
    std::vector<float> each;
    for (const std::size_t i : replicas.expert)
      each.push_back(node_load[i] / static_cast<float>(replicas.count[i]));
    const Packing of_replicas = pack_evenly(each, gpus_per_node);
    for (std::size_t r = 0; r < slots_per_node; ++r) {
      const std::size_t expert = first[replicas.expert[r]];
      const std::size_t slot =
          node * slots_per_node + of_replicas.pack[r] * slots_per_gpu + of_replicas.rank[r];
      placement.physical_to_logical[slot] = static_cast<int>(expert);
      placement.logical_to_physical[expert].push_back(static_cast<int>(slot));
    }
    for (std::size_t i = 0; i < experts_per_node; ++i)
      placement.expert_count[first[i]] = replicas.count[i];
  }
  return placement;
}

double gpu_imbalance(const std::vector<float>& load, const ExpertPlacement& p, Index n_gpus) {
  const auto gpus = static_cast<std::size_t>(n_gpus);
  const std::size_t per_gpu = p.physical_to_logical.size() / gpus;
  std::vector<double> gpu(gpus, 0.0);
  for (std::size_t slot = 0; slot < p.physical_to_logical.size(); ++slot) {
    const auto e = static_cast<std::size_t>(p.physical_to_logical[slot]);
    gpu[slot / per_gpu] += static_cast<double>(load[e]) / p.expert_count[e];
  }
  return max_over_mean(gpu);
}

double gpu_imbalance_unplaced(const std::vector<float>& load, Index n_gpus) {
  const auto gpus = static_cast<std::size_t>(n_gpus);
  std::vector<double> gpu(gpus, 0.0);
  for (std::size_t e = 0; e < load.size(); ++e)
    gpu[e * gpus / load.size()] += static_cast<double>(load[e]);
  return max_over_mean(gpu);
}

std::string_view name_of(PlacementPolicy policy) {
  return policy == PlacementPolicy::Hierarchical ? "hierarchical" : "global";
}

}  // namespace minke

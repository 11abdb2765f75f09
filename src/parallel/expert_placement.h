// Which GPU holds which expert, and which experts are held more than once, so that every GPU gets
// about the same load (the report, section 3.4: redundant experts), layer by layer:
//
//   1. pack groups of experts onto nodes by the sum of their loads, the same number on each
//   2. within a node, give one more replica to the expert with the largest load per replica, until
//      the node's slots are full
//   3. pack the replicas onto the node's GPUs by load per replica, the same number on each
//
// Packing takes items in order of falling load and puts each on the least loaded pack that has
// room; with room for one item a pack, item i goes to pack i. Arithmetic is binary32, running sums
// included, and ties are settled as in the published balancer with a stable sort: equal loads stay
// in index order; the lowest expert among the largest; the lowest pack among the least loaded.
//
// When the groups cannot be spread evenly over the nodes the policy is global: one group, one node.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/threads.h"

namespace minke {

enum class PlacementPolicy { Hierarchical, Global };

struct PlacementShape {
  Index n_replicas = 0;  // physical experts in all, not the extra ones; the same on every GPU
  Index n_groups = 1;    // expert groups that should stay on one node
  Index n_nodes = 1;
  Index n_gpus = 1;
  // Hierarchical when the groups spread evenly over the nodes.
  PlacementPolicy policy() const {
    return n_groups % n_nodes == 0 ? PlacementPolicy::Hierarchical : PlacementPolicy::Global;
  }
};

struct ExpertPlacement {  // of one layer
  // [n_replicas] expert in each slot; slot s is on GPU s / (n_replicas / n_gpus), GPU g on node g /
  // (n_gpus / n_nodes).
  std::vector<int> physical_to_logical;
  std::vector<std::vector<int>> logical_to_physical;  // [E] slots of each expert by replica number
  std::vector<int> expert_count;                      // [E] replicas
};

// load [E] of one layer, finite and at least 0. ConfigError naming what does not fit: fewer slots
// than experts, sizes that do not divide (with the nearest that does), loads that are no loads.
ExpertPlacement place_experts(const std::vector<float>& load, const PlacementShape& shape);

// The checks of place_experts that do not look at loads.
void check_placement_shape(const PlacementShape& shape, Index n_experts);

// Load of the fullest GPU over the mean, each replica carrying load / count (1 when all are 0).
double gpu_imbalance(const std::vector<float>& load, const ExpertPlacement& placement,
                     Index n_gpus);
// The same with every expert once and in index order: GPU g has experts g E / n_gpus and on. Needs
// no even split; a GPU may hold one expert more than another.
double gpu_imbalance_unplaced(const std::vector<float>& load, Index n_gpus);

std::string_view name_of(PlacementPolicy policy);  // "hierarchical", "global"

}  // namespace minke

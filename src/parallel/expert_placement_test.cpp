#include "parallel/expert_placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"

namespace minke {
namespace {

using nlohmann::json;

TEST(ExpertPlacement, GoldenPlacementsOfThePublishedBalancer) {
  const json file =
      json::parse(read_file(std::filesystem::path(MINKE_GOLDEN_DIR) / "eplb" / "cases.json"));
  int cases = 0;
  for (const json& c : file["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    ++cases;
    const PlacementShape shape{.n_replicas = c["num_replicas"],
                               .n_groups = c["num_groups"],
                               .n_nodes = c["num_nodes"],
                               .n_gpus = c["num_gpus"]};
    EXPECT_EQ(name_of(shape.policy()), c["policy"]);
    for (std::size_t layer = 0; layer < c["weight"].size(); ++layer) {
      const auto load = c["weight"][layer].get<std::vector<float>>();
      const ExpertPlacement p = place_experts(load, shape);
      EXPECT_EQ(json(p.physical_to_logical), c["physical_to_logical_map"][layer]);
      EXPECT_EQ(json(p.expert_count), c["expert_count"][layer]);
      const json& slots = c["logical_to_physical_map"][layer];
      for (std::size_t e = 0; e < load.size(); ++e) {
        std::vector<int> padded = p.logical_to_physical[e];
        padded.resize(slots[e].size(), -1);
        EXPECT_EQ(json(padded), slots[e]);
      }
      EXPECT_NEAR(gpu_imbalance(load, p, shape.n_gpus),
                  c["gpu_imbalance_max_over_mean"][layer].get<double>(), 1e-6);
    }
  }
  EXPECT_GT(cases, 30);
}

// Whatever the loads: every slot filled, every expert held, replicas where the load is, and slots
// of an expert that point back to it.
TEST(ExpertPlacement, PropertiesOnRandomLoads) {
  Random random(7);
  for (const auto& [experts, shape] : std::vector<std::pair<std::size_t, PlacementShape>>{
           {1, {.n_replicas = 1}},
           {1, {.n_replicas = 6, .n_gpus = 3}},
           {12, {.n_replicas = 16, .n_groups = 4, .n_nodes = 2, .n_gpus = 8}},
           {13, {.n_replicas = 21, .n_groups = 5, .n_nodes = 3, .n_gpus = 21}},
           {256, {.n_replicas = 288, .n_groups = 8, .n_nodes = 4, .n_gpus = 32}}})
    for (int round = 0; round < 20; ++round) {
      std::vector<float> load(experts);
      for (float& v : load)
        v = round % 3 == 0 ? static_cast<float>(random.below(3))
                           : static_cast<float>(std::exp(3 * random.normal()));
      const ExpertPlacement p = place_experts(load, shape);
      ASSERT_EQ(p.physical_to_logical.size(), static_cast<std::size_t>(shape.n_replicas));
      std::size_t slots = 0;
      for (std::size_t e = 0; e < experts; ++e) {
        EXPECT_GE(p.expert_count[e], 1);
        EXPECT_EQ(p.logical_to_physical[e].size(), static_cast<std::size_t>(p.expert_count[e]));
        for (const int slot : p.logical_to_physical[e])
          EXPECT_EQ(p.physical_to_logical[static_cast<std::size_t>(slot)], static_cast<int>(e));
        slots += p.logical_to_physical[e].size();
      }
      EXPECT_EQ(slots, p.physical_to_logical.size());
      EXPECT_GE(gpu_imbalance(load, p, shape.n_gpus), 1 - 1e-12);
    }
}

TEST(ExpertPlacement, FormatOfRefusals) {
  const auto message = [](const std::vector<float>& load, const PlacementShape& shape) {
    try {
      place_experts(load, shape);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  const std::vector<float> twelve(12, 1.0f);
  const PlacementShape good{.n_replicas = 16, .n_groups = 4, .n_nodes = 2, .n_gpus = 8};
  EXPECT_EQ(message(twelve, good), "accepted");
  const auto with = [&](auto change) {
    PlacementShape shape = good;
    change(shape);
    return message(twelve, shape);
  };
  EXPECT_EQ(with([](PlacementShape& s) { s.n_replicas = 17; }),
            "num_replicas is 17, but must be a multiple of num_gpus = 8; nearest: 16 or 24");
  EXPECT_EQ(with([](PlacementShape& s) { s.n_replicas = 8; }),
            "num_replicas is 8, but 12 experts need at least one slot each; nearest: 16");
  EXPECT_EQ(with([](PlacementShape& s) { s.n_gpus = 7; }),
            "num_gpus is 7, but must be a multiple of num_nodes = 2; nearest: 6 or 8");
  EXPECT_EQ(with([](PlacementShape& s) { s.n_groups = 8; }),
            "the number of experts is 12, but must be a multiple of num_groups = 8; "
            "nearest: 8 or 16");
  EXPECT_EQ(with([](PlacementShape& s) { s.n_nodes = 0; }),
            "num_nodes is 0, but must be from 1 to 1048576");
  EXPECT_EQ(with([](PlacementShape& s) { s.n_replicas = Index{1} << 40; }),
            "num_replicas is 1099511627776, but must be from 1 to 1048576");
  EXPECT_EQ(message({}, good), "the number of experts is 0, but must be from 1 to 1048576");
  std::vector<float> bad = twelve;
  bad[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(message(bad, good),
            "the load of expert 3 is nan, but must be finite (in binary32) and at least 0");
  bad[3] = -1;
  EXPECT_EQ(message(bad, good),
            "the load of expert 3 is -1, but must be finite (in binary32) and at least 0");
}

}  // namespace
}  // namespace minke

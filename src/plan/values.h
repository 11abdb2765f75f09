// The published figures of DeepSeek-V3 and its predecessors, computed: from a model's shape, a
// cluster, a layout and the inputs of plan/report_facts.h. Keys, units and tolerances are those of
// tests/golden/planner.json.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "plan/layout.h"

namespace minke {

using NamedValues = std::vector<std::pair<std::string, double>>;

// ConfigError for a model without MLA and experts.
void check_published_model(const PlanModel& model);

// `model` stands where a key says v3. ConfigError for a model without MLA and experts.
NamedValues published_values(const PlanModel& model, const Cluster& cluster, const Layout& layout);

}  // namespace minke

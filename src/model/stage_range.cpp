#include "model/stage_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "model/parameters.h"

namespace minke {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

struct Nothing {};

// The routed experts of a layer that the visitor listed; all layers have as many.
std::size_t experts_listed(const ModelParameters<Nothing>& parameters) {
  std::size_t n = 0;
  for (const BlockParameters<Nothing>& layer : parameters.layers)
    n = std::max(n, layer.moe.experts.size());
  for (const MtpParameters<Nothing>& module : parameters.mtp)
    n = std::max(n, module.block.moe.experts.size());
  return n;
}

// Costs of contiguous layers, the output's apart.
class Costs {
 public:
  explicit Costs(const ModelConfig& config) : before_{0} {
    const Index L = config.num_hidden_layers;
    for (Index i = 0; i < L; ++i)
      before_.push_back(before_.back() + stage_cost(config, {i, i + 1, false, false}));
    output_ = stage_cost(config, {L, L, false, true});
  }
  Index n_layers() const { return static_cast<Index>(before_.size()) - 1; }
  double layers(Index first, Index last) const {
    return before_[static_cast<std::size_t>(last)] - before_[static_cast<std::size_t>(first)];
  }
  double output() const { return output_; }

 private:
  std::vector<double> before_;  // of the layers before layer i
  double output_ = 0;
};

struct Cut {
  double value = kNever;
  std::vector<Index> ends;  // of every stage
};

// The cut of least value, where join(value of the stages before, cost of a stage) is the value with
// that stage, kNever for one that may not be. best[n][i]: layers [0, i) in n stages.
template <class Join>
Cut best_cut(const Costs& costs, Index n_stages, Join join) {
  const Index L = costs.n_layers();
  std::vector<Cut> best(static_cast<std::size_t>(L) + 1);
  best[0].value = 0;
  for (Index stage = 0; stage < n_stages; ++stage) {
    const bool last_stage = stage == n_stages - 1;
    std::vector<Cut> next(best.size());
    for (Index end = 0; end <= L; ++end) {
      Cut& here = next[static_cast<std::size_t>(end)];
      Index from = -1;
      for (Index begin = 0; begin <= end; ++begin) {
        if (begin == end && !last_stage) continue;
        const double cost = costs.layers(begin, end) + (last_stage ? costs.output() : 0);
        const double value = join(best[static_cast<std::size_t>(begin)].value, cost);
        if (value < here.value) {
          here.value = value;
          from = begin;
        }
      }
      if (from < 0) continue;
      here.ends = best[static_cast<std::size_t>(from)].ends;
      here.ends.push_back(end);
    }
    best = std::move(next);
  }
  return std::move(best.back());
}

}  // namespace

StageRange whole_model(const ModelConfig& config) {
  return {0, config.num_hidden_layers, true, true};
}

double stage_cost(const ModelConfig& config, const StageRange& range) {
  ModelParameters<Nothing> parameters;
  double cost = 0, experts = 0;
  visit_parameters(config, range, parameters, [&](const ParameterSpec& spec, Nothing&) {
    if (spec.shape.size() < 2 || spec.role == Role::Embedding) return;
    const auto size = static_cast<double>(element_count(spec.shape));
    if (spec.role == Role::Head)
      cost += size * static_cast<double>(1 + config.num_nextn_predict_layers);
    else if (is_routed_expert(spec))
      experts += size;
    else
      cost += size;
  });
  const std::size_t listed = experts_listed(parameters);
  if (listed > 0)
    cost += experts / static_cast<double>(listed) * static_cast<double>(config.num_experts_per_tok);
  return cost;
}

std::vector<StageRange> cut_stages(const ModelConfig& config, Index n_stages) {
  const Index L = config.num_hidden_layers;
  if (n_stages < 1 || n_stages > L + 1)
    throw ConfigError(
        fmt::format("a model of {} layers cannot be cut into {} pipeline stages: 1 to {} are "
                    "possible, each with a layer, the last one with the output alone; use fewer "
                    "pipeline ranks",
                    L, n_stages, L + 1));
  const Costs costs(config);
  const double pace = best_cut(costs, n_stages, [](double before, double cost) {
                        return std::max(before, cost);
                      }).value;
  const double limit = pace * (1 + 1e-12);  // costs are differences of sums
  const Cut cut = best_cut(costs, n_stages, [&](double before, double cost) {
    return cost <= limit ? before + cost * cost : kNever;
  });
  std::vector<StageRange> stages;
  Index first = 0;
  for (const Index end : cut.ends) {
    stages.push_back({first, end, false, false});
    first = end;
  }
  stages.front().embedding = true;
  stages.back().output = true;
  return stages;
}

}  // namespace minke

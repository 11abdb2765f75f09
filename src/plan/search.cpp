#include "plan/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "plan/memory.h"

namespace minke {
namespace {

std::string bound_of(const StepEstimate& e, double memory_share) {
  std::string text = e.exchange_bound ? "exchange" : "compute";
  const auto add = [&](const char* what, double share) {
    if (share >= 0.05) text += fmt::format(", {} {:.0f} %", what, share * 100);
  };
  add("bubble", e.bubble_s / e.step_s);
  add("gradients", e.gradients_s / e.step_s);
  add("optimiser", e.optimizer_s / e.step_s);
  if (memory_share >= 0.9) text += ", memory nearly full";
  return text;
}

// Calls visit for every structurally sound layout of this batch.
template <class Visit>
void each_layout(const PlanModel& m, const Cluster& c, const SearchSettings& search, Visit visit) {
  Layout l;
  l.sequence = search.sequence;
  l.fp8 = search.fp8;
  l.mtp = search.mtp;
  for (l.pipeline = 1; l.pipeline <= std::min(c.devices, m.num_hidden_layers); ++l.pipeline) {
    if (c.devices % l.pipeline != 0) continue;
    l.data = c.devices / l.pipeline;
    if (search.batch % l.data != 0) continue;
    const Index of_pipeline = search.batch / l.data;
    const Index most_experts = m.has_experts() ? std::min(m.n_routed_experts, l.data) : 1;
    for (l.expert = 1; l.expert <= most_experts; ++l.expert)
      for (l.micro_batch = 1; l.micro_batch <= std::min<Index>(of_pipeline, 8);
           l.micro_batch *= 2) {
        if (of_pipeline % l.micro_batch != 0) continue;
        l.micro_batches = of_pipeline / l.micro_batch;
        for (const char* schedule : {"dualpipe", "dualpipev", "zb1p", "1f1b"}) {
          l.schedule = schedule;
          if (!structure_problem(m, c, l).empty()) continue;
          for (const char* recompute : {"none", "selective", "full"}) {
            l.recompute = recompute;
            visit(l);
          }
        }
      }
  }
}

}  // namespace

SearchResult search_layouts(const PlanModel& m, const Cluster& c, const SearchSettings& search,
                            const PhaseSettings& phases) {
  const MemorySettings settings;
  SearchResult result;
  result.least_memory_bytes = std::numeric_limits<double>::infinity();
  each_layout(m, c, search, [&](const Layout& evenly) {
    ++result.tried;
    const Layout l = with_balanced_layers(m, c, evenly, phases);
    const double bytes = largest_rank(rank_memory(m, l, settings)).device_bytes();
    result.least_memory_bytes = std::min(result.least_memory_bytes, bytes);
    const double share = bytes / c.memory_bytes;
    if (share > settings.usable_share) return;
    ++result.fit;
    RankedLayout ranked{l, estimate_step(m, c, l, phases), share, ""};
    ranked.bound = bound_of(ranked.step, share);
    result.best.push_back(std::move(ranked));
  });
  if (result.tried == 0)
    throw ConfigError(
        fmt::format("no split of {} devices takes a batch of {} sequences; a multiple of {} works",
                    c.devices, search.batch, c.devices));
  if (result.fit == 0)
    throw ConfigError(fmt::format(
        "none of {} layouts of {} fits: the smallest needs {:.1f} GB on a device of {:.0f} GB; "
        "more devices or fewer tokens in a sequence make it smaller",
        result.tried, m.name, result.least_memory_bytes / 1e9, c.memory_bytes / 1e9));
  const auto better = [](const RankedLayout& a, const RankedLayout& b) {
    return a.step.tokens_per_s_per_device > b.step.tokens_per_s_per_device;
  };
  std::stable_sort(result.best.begin(), result.best.end(), better);
  if (static_cast<Index>(result.best.size()) > search.keep)
    result.best.resize(static_cast<std::size_t>(search.keep));
  return result;
}

}  // namespace minke

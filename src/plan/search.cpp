#include "plan/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "plan/memory.h"
#include "plan/step_time.h"

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

constexpr Index kMostSequences = 16;  // of a micro-batch

// Why a layout of this shape cannot be; nullptr when it can.
const char* shape_problem(const PlanModel& m, const Cluster& c, const Layout& l) {
  if (l.stages() > m.num_hidden_layers) return "more stages than layers";
  if (l.data % l.expert != 0) return "data ranks not in groups of expert ranks";
  if (!structure_problem(m, c, l).empty()) return "too few micro-batches, or an odd number";
  return nullptr;
}

// Calls visit with every layout that is looked at, and drop with the number of those that are left
// out together and why.
template <class Visit, class Drop>
void each_layout(const PlanModel& m, const Cluster& c, const SearchSettings& search, Visit visit,
                 Drop drop) {
  constexpr const char* kRecompute[] = {"none", "selective", "full"};
  Layout l;
  l.sequence = search.sequence;
  l.fp8 = search.fp8;
  l.mtp = search.mtp;
  for (l.pipeline = 1; l.pipeline <= std::min(c.devices, m.num_hidden_layers); ++l.pipeline) {
    l.data = c.devices / l.pipeline;  // what does not divide stays idle
    if (search.batch % l.data != 0) {
      drop(std::size(kRecompute), "batch not a multiple of the data ranks");
      continue;
    }
    const Index of_pipeline = search.batch / l.data;
    const Index most_experts = m.has_experts() ? std::min(m.n_routed_experts, l.data) : 1;
    for (l.expert = 1; l.expert <= most_experts; ++l.expert) {
      if (m.has_experts() && m.n_routed_experts % l.expert != 0) continue;
      for (l.micro_batch = 1; l.micro_batch <= std::min(of_pipeline, kMostSequences);
           ++l.micro_batch) {
        if (of_pipeline % l.micro_batch != 0) continue;
        l.micro_batches = of_pipeline / l.micro_batch;
        for (const char* schedule : {"dualpipe", "dualpipev", "zb1p", "1f1b"}) {
          l.schedule = schedule;
          if (const char* problem = shape_problem(m, c, l)) {
            drop(std::size(kRecompute), problem);
            continue;
          }
          for (const char* recompute : kRecompute) {
            l.recompute = recompute;
            visit(l);
          }
        }
      }
    }
  }
}

bool faster(const RankedLayout& a, const RankedLayout& b) {
  return a.seconds() < b.seconds();
}

// The best of them by simulation, where a list is made for so many ranks and micro-batches.
void simulate_best(const PlanModel& m, const Cluster& c, const PhaseSettings& phases, Index n,
                   std::vector<RankedLayout>& best) {
  for (Index i = 0; i < std::min<Index>(n, static_cast<Index>(best.size())); ++i) {
    RankedLayout& ranked = best[static_cast<std::size_t>(i)];
    try {
      const StepTime step = step_time(m, c, ranked.layout, phases);
      ranked.simulated_s = step.step_s;
      ranked.simulated_mfu = step.mfu;
    } catch (const ConfigError&) {
      // More micro-batches than a list is made for: its closed form stands.
    }
  }
  best.resize(std::min(best.size(), static_cast<std::size_t>(n)));
  std::stable_sort(best.begin(), best.end(), faster);
}

}  // namespace

SearchResult search_layouts(const PlanModel& m, const Cluster& c, const SearchSettings& search,
                            const PhaseSettings& phases) {
  const MemorySettings settings;
  SearchResult result;
  result.least_memory_bytes = std::numeric_limits<double>::infinity();
  const auto drop = [&](Index n, const char* why) {
    result.dropped[why] += n;
    result.looked_at += n;
  };
  const auto visit = [&](const Layout& evenly) {
    ++result.looked_at;
    ++result.tried;
    const Layout l = with_balanced_layers(m, c, evenly, phases);
    const double bytes = largest_rank(rank_memory(m, l, settings)).device_bytes();
    result.least_memory_bytes = std::min(result.least_memory_bytes, bytes);
    const double share = bytes / c.memory_bytes;
    if (share > settings.usable_share) {
      ++result.dropped["does not fit into memory"];
      return;
    }
    ++result.fit;
    RankedLayout ranked{l, estimate_step(m, c, l, phases), share, ""};
    ranked.bound = bound_of(ranked.step, share);
    result.best.push_back(std::move(ranked));
  };
  each_layout(m, c, search, visit, drop);
  if (result.tried == 0)
    throw ConfigError(
        fmt::format("no split of {} devices takes a batch of {} sequences; a multiple of {} works",
                    c.devices, search.batch, c.devices));
  if (result.fit == 0)
    throw ConfigError(fmt::format(
        "none of {} layouts of {} fits: the smallest needs {:.1f} GB on a device of {:.0f} GB; "
        "more devices or fewer tokens in a sequence make it smaller",
        result.tried, m.name, result.least_memory_bytes / 1e9, c.memory_bytes / 1e9));
  std::stable_sort(result.best.begin(), result.best.end(), faster);
  if (search.simulate > 0) simulate_best(m, c, phases, search.simulate, result.best);
  if (static_cast<Index>(result.best.size()) > search.keep)
    result.best.resize(static_cast<std::size_t>(search.keep));
  return result;
}

}  // namespace minke

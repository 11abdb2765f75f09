// Layouts near one that was asked for, and what is chosen when nothing was asked for.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "plan/layout.h"
#include "plan/memory.h"

namespace minke {
namespace {

// Divisors of n up to `most`, ascending.
std::vector<Index> divisors(Index n, Index most) {
  std::vector<Index> list;
  for (Index d = 1; d <= std::min(n, most); ++d)
    if (n % d == 0) list.push_back(d);
  return list;
}

std::vector<Index> expert_candidates(const PlanModel& m, Index data) {
  if (!m.has_experts()) return {1};
  std::vector<Index> list;
  for (Index e : divisors(m.n_routed_experts, data))
    if (data % e == 0) list.push_back(e);
  return list;
}

// The smallest number that the schedule allows, rounded to what it allows.
Index least_micro_batches(const Layout& l) {
  return has_two_phases(l.kind()) ? 2 * l.pipeline : l.stages();
}

// How far a layout is from the one wanted: factors of two between their sizes, and a little for
// other choices. What was left to be chosen (0) has no distance.
double distance(const Layout& wanted, const Layout& l) {
  const auto apart = [](Index a, Index b) {
    return a == 0 ? 0.0 : std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
  };
  const auto strength = [](const Layout& x) { return static_cast<int>(x.recomputed()); };
  return apart(wanted.pipeline, l.pipeline) + apart(wanted.expert, l.expert) +
         apart(wanted.data, l.data) + 0.5 * apart(wanted.micro_batches, l.micro_batches) +
         0.7 * std::abs(strength(wanted) - strength(l)) + (wanted.schedule == l.schedule ? 0 : 2) +
         (wanted.fp8 == l.fp8 ? 0 : 2) + (wanted.layers_per_stage == l.layers_per_stage ? 0 : 0.1);
}

// Calls `visit` with layouts that may work on this many devices.
template <class Visit>
void each_candidate(const PlanModel& m, const Cluster& c, const Layout& wanted,
                    const std::vector<std::string>& schedules, Visit visit) {
  Layout l = wanted;
  std::vector<Index> pipelines = divisors(c.devices, m.num_hidden_layers);
  if (wanted.pipeline > 0 && wanted.pipeline <= std::min(c.devices, m.num_hidden_layers))
    pipelines.push_back(wanted.pipeline);
  for (const std::string& schedule : schedules)
    for (Index pipeline : pipelines) {
      l.schedule = schedule;
      l.pipeline = pipeline;
      l.layers_per_stage = wanted.layers_per_stage;
      if (static_cast<Index>(l.layers_per_stage.size()) != l.stages()) l.layers_per_stage.clear();
      std::vector<Index> datas = {c.devices / pipeline};
      if (wanted.data > 0 && wanted.data < datas[0]) datas.push_back(wanted.data);
      const Index least = least_micro_batches(l), even = wanted.micro_batches / 2 * 2;
      const Index usual =
          wanted.micro_batches == 0 ? std::max<Index>(8 * pipeline, 8) : wanted.micro_batches;
      for (Index data : datas)
        for (Index expert : expert_candidates(m, data))
          for (Index micro : {usual, even, even + 2, least})
            for (const char* recompute : {"none", "selective", "full"}) {
              l.data = data;
              l.expert = expert;
              l.micro_batches = std::max(micro, least);
              l.recompute = recompute;
              visit(l);
            }
    }
}

std::optional<Layout> nearest(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  const std::vector<std::string> same = {wanted.schedule};
  const std::vector<std::string> all = {"dualpipe", "zb1p", "1f1b", "dualpipev"};
  for (const auto& schedules : {same, all}) {
    std::optional<Layout> best;
    double least = INFINITY;
    each_candidate(m, c, wanted, schedules, [&](const Layout& l) {
      const double d = distance(wanted, l);
      if (d >= least || !layout_problem(m, c, l).empty()) return;
      least = d;
      best = l;
    });
    if (best) return best;
  }
  return std::nullopt;
}

std::string advice(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  if (const auto l = nearest(m, c, wanted)) return "the nearest layout that works: " + l->flags();
  Cluster larger = c;
  while (larger.devices <= (Index{1} << 18)) {
    larger.devices *= 2;
    if (const auto l = nearest(m, larger, wanted))
      return fmt::format("nothing works on {} devices; on {}: {}", c.devices, larger.devices,
                         l->flags());
  }
  return fmt::format("nothing works on {} devices nor on {}", c.devices, larger.devices);
}

// What was left open of a run of DeepSeek-V3 on the report's number of devices is the report's own
// choice, as far as it goes with what was asked for.
void fill_as_reported(const PlanModel& m, const Cluster& c, Layout& l) {
  const Layout report = report_layout();
  if (m.name != "deepseek-v3" || c.devices != report.devices()) return;
  if (l.pipeline == 0) l.pipeline = report.pipeline;
  if (l.data == 0) l.data = c.devices / l.pipeline;
  if (l.expert == 0 && l.data % report.expert == 0) l.expert = report.expert;
  if (l.micro_batches == 0 && l.data > 0)
    l.micro_batches = report.batch_sequences() / l.data / l.micro_batch;
}

bool keeps(const Layout& wanted, const Layout& l) {
  const auto kept = [](Index asked, Index got) { return asked == 0 || asked == got; };
  return kept(wanted.pipeline, l.pipeline) && kept(wanted.expert, l.expert) &&
         kept(wanted.data, l.data) && kept(wanted.micro_batches, l.micro_batches) &&
         wanted.schedule == l.schedule && wanted.recompute == l.recompute &&
         wanted.layers_per_stage == l.layers_per_stage;
}

// The layout whose problem is to be told: of those that keep what was asked for, the smallest in
// memory; else usual values for what was left open.
Layout example(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  std::optional<Layout> smallest;
  double least = INFINITY;
  each_candidate(m, c, wanted, {wanted.schedule}, [&](const Layout& l) {
    if (!keeps(wanted, l) || !structure_problem(m, c, l).empty()) return;
    const double bytes = largest_rank(rank_memory(m, l, {})).device_bytes();
    if (bytes >= least) return;
    least = bytes;
    smallest = l;
  });
  if (smallest) return *smallest;
  Layout l = wanted;
  if (l.pipeline == 0)
    l.pipeline = std::max<Index>(2, static_cast<Index>(l.layers_per_stage.size()));
  if (l.data == 0) l.data = c.devices / l.pipeline;
  if (l.expert == 0)
    for (Index e : expert_candidates(m, std::max<Index>(l.data, 1))) l.expert = e;
  if (l.micro_batches == 0) l.micro_batches = 8 * l.pipeline;
  return l;
}

}  // namespace

Layout complete_layout(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  Layout l = wanted;
  if (l.schedule == "auto") l.schedule = l.pipeline == 1 || c.devices == 1 ? "1f1b" : "dualpipe";
  fill_as_reported(m, c, l);
  if (l.pipeline > 0 && l.data == 0) l.data = c.devices / l.pipeline;
  if (l.pipeline == 0 || l.expert == 0 || l.micro_batches == 0) {
    const auto found = nearest(m, c, l);
    if (found && keeps(l, *found)) return *found;
  }
  const Layout told =
      l.pipeline == 0 || l.expert == 0 || l.micro_batches == 0 ? example(m, c, l) : l;
  const std::string problem = layout_problem(m, c, told);
  if (problem.empty()) return told;
  throw ConfigError(problem + "; " + advice(m, c, l));
}

}  // namespace minke

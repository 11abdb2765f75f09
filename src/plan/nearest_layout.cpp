// Layouts near one that was asked for, and what is chosen when nothing was asked for.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "plan/layout.h"

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
  return l.kind() == PipelineKind::DualPipe || l.kind() == PipelineKind::DualPipeV ? 2 * l.pipeline
                                                                                   : l.stages();
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

// Nothing of the layout's shape was asked for, and the run is the report's own.
bool is_report_run(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  return m.name == "deepseek-v3" && c.devices == report_layout().devices() &&
         wanted.pipeline == 0 && wanted.expert == 0 && wanted.data == 0 &&
         (wanted.schedule == "dualpipe" || wanted.schedule == "zb1p" || wanted.schedule == "1f1b");
}

}  // namespace

Layout complete_layout(const PlanModel& m, const Cluster& c, const Layout& wanted) {
  Layout l = wanted;
  if (is_report_run(m, c, wanted)) {
    const Layout report = report_layout();
    l.pipeline = report.pipeline;
    l.expert = report.expert;
    l.data = report.data;
    if (l.micro_batches == 0) l.micro_batches = report.micro_batches;
  }
  const bool open = l.pipeline == 0 || l.expert == 0 || l.micro_batches == 0;
  if (l.pipeline > 0 && l.data == 0) l.data = c.devices / l.pipeline;
  if (open) {
    if (const auto found = nearest(m, c, l)) {
      const bool kept = (l.pipeline == 0 || found->pipeline == l.pipeline) &&
                        (l.expert == 0 || found->expert == l.expert) &&
                        (l.data == 0 || found->data == l.data) &&
                        (l.micro_batches == 0 || found->micro_batches == l.micro_batches) &&
                        found->schedule == l.schedule && found->recompute == l.recompute &&
                        found->layers_per_stage == l.layers_per_stage;
      if (kept) return *found;
    }
    // What was left open takes a usual value, so that the message can name what is wrong.
    if (l.pipeline == 0)
      l.pipeline = std::max<Index>(1, static_cast<Index>(l.layers_per_stage.size()));
    if (l.data == 0) l.data = c.devices / l.pipeline;
    if (l.expert == 0) {
      l.expert = 1;
      if (l.data > 0)
        for (Index e : expert_candidates(m, l.data)) l.expert = e;
    }
    if (l.micro_batches == 0) l.micro_batches = 8 * l.pipeline;
  }
  const std::string problem = layout_problem(m, c, l);
  if (problem.empty()) return l;
  throw ConfigError(problem + "; " + advice(m, c, wanted));
}

}  // namespace minke

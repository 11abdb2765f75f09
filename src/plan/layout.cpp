#include "plan/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "plan/memory.h"

namespace minke {
namespace {

std::string least_micro_batches_problem(const Layout& l) {
  const Index S = l.stages(), M = l.micro_batches;
  const bool dual = l.kind() == ScheduleKind::DualPipe;
  const Index least = has_two_phases(l.kind()) ? 2 * l.pipeline : S;
  if (M < least)
    return fmt::format("{} micro-batches are too few for {} with {} pipeline ranks; at least {}", M,
                       l.schedule, l.pipeline, least);
  if (dual && M % 2 != 0)
    return fmt::format("dualpipe needs an even number of micro-batches, not {}", M);
  if (dual && l.pipeline % 2 != 0)
    return fmt::format("dualpipe needs an even number of pipeline ranks, not {}", l.pipeline);
  return "";
}

std::string expert_problem(const PlanModel& m, const Layout& l) {
  if (!m.has_experts())
    return l.expert == 1
               ? ""
               : fmt::format("{} has no experts to spread over {} ranks", m.name, l.expert);
  if (m.n_routed_experts % l.expert != 0)
    return fmt::format("{} experts cannot be divided among {} expert ranks", m.n_routed_experts,
                       l.expert);
  if (l.data % l.expert != 0)
    return fmt::format("{} data ranks cannot be divided into groups of {} expert ranks", l.data,
                       l.expert);
  return "";
}

std::string stage_problem(const PlanModel& m, const Layout& l) {
  const Index S = l.stages(), L = m.num_hidden_layers;
  if (S > L)
    return fmt::format("a pipeline of {} stages is longer than the model's {} layers", S, L);
  if (l.layers_per_stage.empty()) return "";
  const auto& list = l.layers_per_stage;
  if (static_cast<Index>(list.size()) != S)
    return fmt::format("layers-per-stage names {} stages, but the pipeline has {}", list.size(), S);
  if (*std::min_element(list.begin(), list.end()) < 1)
    return "layers-per-stage has a stage without layers";
  // Compared one by one, so that a sum cannot overflow.
  Index left = L;
  for (Index n : list) {
    if (n > left) return fmt::format("layers-per-stage adds up to more than the {} layers", L);
    left -= n;
  }
  return left == 0 ? ""
                   : fmt::format("layers-per-stage adds up to {}, but the model has {} layers",
                                 L - left, L);
}

}  // namespace

Recompute Layout::recomputed() const {
  if (recompute == "none") return Recompute::None;
  if (recompute == "selective") return Recompute::Selective;
  if (recompute == "full") return Recompute::Full;
  throw ConfigError("recompute is '" + recompute + "', but must be one of none, selective, full");
}

double Layout::synchronised_bytes(bool routed_expert) const {
  constexpr double kGradient = 4;
  if (gather == "fp32") return kGradient + 4;
  return kGradient + (routed_expert && fp8 ? 1 : 2);
}

ExchangeForm Layout::exchange_form() const {
  if (dispatch == "full") return {};
  return dispatch == "fp8" || (dispatch == "compute" && fp8) ? kFp8Exchange : kBf16Exchange;
}

std::string Layout::flags() const {
  std::string text = fmt::format(
      "--pipeline {} --expert {} --data {} --micro-batches {} --micro-batch {} --sequence {} "
      "--schedule {} --recompute {}",
      pipeline, expert, data, micro_batches, micro_batch, sequence, schedule, recompute);
  if (!fp8) text += " --no-fp8";
  if (!mtp) text += " --no-mtp";
  if (gather != "compute") text += " --gather " + gather;
  if (dispatch != "compute") text += " --dispatch " + dispatch;
  if (!layers_per_stage.empty())
    text += fmt::format(" --layers-per-stage {}", fmt::join(layers_per_stage, ","));
  return text;
}

std::vector<StageContent> stage_contents(const PlanModel& m, const Layout& l) {
  const Index S = l.stages(), L = m.num_hidden_layers;
  std::vector<StageContent> stages(static_cast<std::size_t>(S));
  Index layer = 0;
  for (Index s = 0; s < S; ++s) {
    StageContent& stage = stages[static_cast<std::size_t>(s)];
    const Index n = l.layers_per_stage.empty() ? L / S + (s < L % S ? 1 : 0)
                                               : l.layers_per_stage[static_cast<std::size_t>(s)];
    for (Index i = 0; i < n; ++i, ++layer)
      ++(m.is_moe(layer) ? stage.moe_layers : stage.dense_layers);
  }
  stages.front().embedding = true;
  stages.back().head = true;
  stages.back().mtp_modules = l.mtp ? m.num_nextn_predict_layers : 0;
  return stages;
}

std::vector<Index> hosted_stages(const Layout& l, Index rank) {
  switch (l.kind()) {
    case ScheduleKind::DualPipe:
      return {rank, l.pipeline - 1 - rank};
    case ScheduleKind::DualPipeV:
      return {rank, 2 * l.pipeline - 1 - rank};
    default:
      return {rank};
  }
}

Layout report_layout() {
  Layout l;
  l.schedule = "dualpipe";
  l.pipeline = 16;
  l.expert = 64;
  l.data = 128;
  l.micro_batches = 120;  // of one sequence: 15360 / 128, assumed
  return l;
}

std::string structure_problem(const PlanModel& model, const Cluster& cluster, const Layout& l) {
  if (l.data < 1)
    return fmt::format("a pipeline of {} ranks is longer than the cluster's {} devices", l.pipeline,
                       cluster.devices);
  if (l.devices() > cluster.devices)
    return fmt::format("{} pipeline x {} data ranks are {} devices, but {} has {}", l.pipeline,
                       l.data, l.devices(), cluster.name, cluster.devices);
  for (const std::string& problem :
       {stage_problem(model, l), expert_problem(model, l), least_micro_batches_problem(l)})
    if (!problem.empty()) return problem;
  return "";
}

std::string layout_problem(const PlanModel& model, const Cluster& cluster, const Layout& l) {
  const std::string problem = structure_problem(model, cluster, l);
  if (!problem.empty()) return problem;
  const MemorySettings settings;
  const RankMemory worst = largest_rank(rank_memory(model, l, settings));
  const double usable = cluster.memory_bytes * settings.usable_share;
  if (worst.device_bytes() <= usable) return "";
  return fmt::format(
      "rank {} needs {:.1f} GB, but a device of {} has {:.1f} GB that can be used ({:.0f} GB, "
      "{:.0f} % "
      "of them)",
      worst.rank, worst.device_bytes() / 1e9, cluster.name, usable / 1e9,
      cluster.memory_bytes / 1e9, settings.usable_share * 100);
}

}  // namespace minke

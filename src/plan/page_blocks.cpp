#include "plan/page_blocks.h"

#include <fmt/format.h>

#include <algorithm>

namespace minke {
namespace {

std::string ms(double seconds) {
  return fmt::format("{:.2f}", seconds * 1e3);
}

// The rank that holds `stage`; with dualpipe two do, and the first is named.
Index rank_of_stage(const Layout& l, Index stage) {
  if (l.kind() == ScheduleKind::DualPipeV && stage >= l.pipeline) return 2 * l.pipeline - 1 - stage;
  return stage;
}

std::string bound_of(const Layout& l, const StagePhases& p, const OpSeconds& o) {
  const bool exchange = has_two_phases(l.kind()) && l.micro_batches > 1
                            ? o.exchange_bound
                            : p.dispatch + p.combine > p.forward;
  return exchange ? "exchange" : "compute";
}

}  // namespace

page::Bars memory_bars(const std::vector<RankMemory>& ranks) {
  page::Bars bars{{"weights", "gradients", "optimiser", "activations", "buffers"}, {}};
  for (const RankMemory& r : ranks)
    bars.bars.push_back({fmt::format("rank {}", r.rank),
                         {r.weights / 1e9, r.gradients / 1e9, r.optimizer / 1e9,
                          r.activations / 1e9, r.buffers / 1e9},
                         fmt::format("{:.1f} GB", r.device_bytes() / 1e9)});
  return bars;
}

page::Table stage_table(const PlanModel& m, const StepTime& step) {
  page::Table table;
  table.columns = {"stage", "rank", "dense", "MoE",     "F",       "B",       "BI",
                   "W",     "FB",   "disp.", "combine", "message", "bound by"};
  const std::vector<StageContent> contents = stage_contents(m, step.layout);
  for (std::size_t s = 0; s < contents.size(); ++s) {
    const StagePhases& p = step.phases.stages[s];
    const OpSeconds& o = step.phases.ops[s];
    const auto stage = static_cast<Index>(s);
    table.rows.push_back({std::to_string(stage), std::to_string(rank_of_stage(step.layout, stage)),
                          std::to_string(contents[s].dense_layers),
                          std::to_string(contents[s].moe_layers + contents[s].mtp_modules), ms(o.F),
                          ms(o.B), ms(o.BI), ms(o.W),
                          has_two_phases(step.layout.kind()) ? ms(o.FB) : "-", ms(p.dispatch),
                          ms(p.combine), ms(p.message), bound_of(step.layout, p, o)});
  }
  return table;
}

page::Table rank_table(const StepTime& step) {
  page::Table table;
  table.columns = {"rank", "F", "FB", "B", "W", "bubble", "share", "gradients", "optimiser"};
  for (std::size_t r = 0; r < step.ranks.size(); ++r) {
    const StepParts& p = step.ranks[r];
    std::vector<std::string> row{std::to_string(r)};
    for (const double s : {p.F, p.FB, p.B, p.W, p.bubble}) row.push_back(fmt::format("{:.3f}", s));
    row.push_back(fmt::format("{:.1f} %", 100 * p.bubble / step.pipeline_s));
    for (const double s : {p.gradients, p.optimizer}) row.push_back(fmt::format("{:.3f}", s));
    table.rows.push_back(std::move(row));
  }
  return table;
}

page::Table cost_table(const std::vector<CostRow>& rows) {
  page::Table table;
  table.columns = {"", "tokens", "K device hours", "days", "M USD"};
  for (const CostRow& row : rows)
    table.rows.push_back({row.what, row.tokens > 0 ? fmt::format("{:.4g}", row.tokens) : "-",
                          fmt::format("{:.1f}", row.cost.hours / 1e3),
                          fmt::format("{:.2f}", row.cost.days),
                          fmt::format("{:.3f}", row.cost.usd / 1e6)});
  return table;
}

}  // namespace minke

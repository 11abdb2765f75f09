#include "train/training_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/stage_range.h"

namespace minke {
namespace {

// Micro-batches that each pipeline must have: a multiple of `unit`, and `least` or more.
struct ChunkRule {
  Index unit = 1, least = 1;
};
ChunkRule chunk_rule(const TrainingLayout& layout) {
  if (!has_two_phases(layout.schedule)) return {};
  return {layout.schedule == ScheduleKind::DualPipe ? 2 : 1, Index{2} * layout.mesh.pipeline};
}

std::string sizes_text(Index below, Index above) {
  return below > 0 ? fmt::format("{} or {}", below, above) : fmt::format("{}", above);
}

void check_rows(const char* name, Index rows, const Recipe& recipe, const TrainingLayout& layout,
                Index least) {
  const ChunkRule rule = chunk_rule(layout);
  const bool piped = layout.mesh.pipeline > 1;
  const Index micro = recipe.data.micro_batch, n = layout.mesh.n_data_ranks();
  const Index unit = micro * n * rule.unit;
  if (unit == 0 || (rows % unit == 0 && rows >= least)) return;
  const Index below = rows / unit * unit;
  std::string needed = fmt::format(
      "{} = {} x {}", piped ? "data.micro_batch times pipelines" : "data.micro_batch times ranks",
      micro, n);
  if (rule.unit > 1) needed += fmt::format(" x {}", rule.unit);
  if (least > unit) needed += fmt::format(", at least {}", least);
  throw ConfigError(fmt::format(
      "{} is {}, but must be a multiple of {}, so that each {} has as many micro-batches{}: {}",
      name, rows, needed, piped ? "pipeline" : "rank",
      rule.least > 1 ? fmt::format(" as {} takes", name_of(layout.schedule)) : "",
      sizes_text(below < least ? 0 : below, std::max(below + unit, least))));
}

}  // namespace

TrainingLayout layout_of(const ParallelRecipe& recipe, int n_ranks) {
  const Index of_stage = recipe.pipeline * recipe.experts;
  if (n_ranks % of_stage != 0)
    throw ConfigError(fmt::format(
        "parallel.pipeline x parallel.experts = {} x {} take a multiple of {} ranks, "
        "but {} {} started; start {}, or change the layout",
        recipe.pipeline, recipe.experts, of_stage, n_ranks, n_ranks == 1 ? "was" : "were",
        sizes_text(n_ranks / of_stage * of_stage, n_ranks / of_stage * of_stage + of_stage)));
  TrainingLayout layout;
  layout.mesh = {.pipeline = static_cast<int>(recipe.pipeline),
                 .expert = static_cast<int>(recipe.experts),
                 .data = static_cast<int>(n_ranks / of_stage)};
  const ScheduleKind schedule = parse_schedule_kind(recipe.schedule);
  if (recipe.pipeline == 1 && schedule != ScheduleKind::DualPipeV) return layout;
  layout.schedule = schedule;
  if (layout.schedule == ScheduleKind::DualPipe && recipe.pipeline % 2 != 0)
    throw ConfigError(
        fmt::format("parallel.pipeline is {}, but dualpipe needs an even number of ranks: {} or "
                    "{}; or set parallel.schedule=dualpipev",
                    recipe.pipeline, recipe.pipeline - 1, recipe.pipeline + 1));
  return layout;
}

std::vector<StageRange> stages_of(const TrainingLayout& layout, const ModelConfig& config) {
  return cut_stages(config.whole(), stages_of(layout.schedule, layout.mesh.pipeline));
}

std::vector<int> held_stages(const TrainingLayout& layout, int pipeline_rank) {
  std::vector<int> stages{pipeline_rank};
  if (has_two_phases(layout.schedule))
    stages.push_back(static_cast<int>(stages_of(layout.schedule, layout.mesh.pipeline)) - 1 -
                     pipeline_rank);
  std::sort(stages.begin(), stages.end());
  return stages;
}

int first_holder(const TrainingLayout& layout, int pipeline_rank) {
  return layout.schedule == ScheduleKind::DualPipe
             ? std::min(pipeline_rank, layout.mesh.pipeline - 1 - pipeline_rank)
             : pipeline_rank;
}

void hold_part(const TrainingLayout& layout, const MeshPlace& place, ModelConfig& config) {
  if (layout.mesh.expert > 1) {
    const IndexRange experts = share_of(config.n_routed_experts, layout.mesh.expert, place.expert);
    config.held_experts = ExpertRange{experts.begin, experts.end};
  }
  if (layout.mesh.pipeline == 1) return;
  const std::vector<StageRange> stages = stages_of(layout, config);
  for (const int stage : held_stages(layout, place.pipeline))
    config.held_stages.push_back(stages[static_cast<std::size_t>(stage)]);
}

void check_micro_batches(const Recipe& recipe, const TrainingLayout& layout) {
  const DataRecipe& data = recipe.data;
  const Index n = layout.mesh.n_data_ranks(), n_ranks = layout.mesh.n_ranks();
  const ChunkRule rule = chunk_rule(layout);
  if (data.micro_batch == 0 && n_ranks > 1)
    throw ConfigError(fmt::format(
        "data.micro_batch is 0, but {} ranks share out micro-batches; set it to at most {}",
        n_ranks, std::max<Index>(data.batch_size / (n * rule.least), 1)));
  const Index least = data.micro_batch * n * rule.least;
  check_rows("data.batch_size", data.batch_size, recipe, layout, least);
  if (recipe.batch_ramp.from == 0) return;
  check_rows("batch_ramp.from", recipe.batch_ramp.from, recipe, layout, least);
  check_rows("batch_ramp.multiple", recipe.batch_ramp.multiple, recipe, layout, 0);
}

void check_layout(const Recipe& recipe, const ModelConfig& config, const TrainingLayout& layout) {
  const Index experts = config.n_routed_experts, n = layout.mesh.expert;
  if (n > 1 && (experts == 0 || experts % n != 0))
    throw ConfigError(fmt::format(
        "parallel.experts is {}, but must divide n_routed_experts = {}, so that each rank has as "
        "many",
        n, experts));
  (void)stages_of(layout, config);
  check_micro_batches(recipe, layout);
}

ExchangeForm parse_exchange_form(std::string_view name) {
  if (name == "full") return {};
  if (name == "bf16") return kBf16Exchange;
  if (name == "fp8") return kFp8Exchange;
  throw ConfigError(fmt::format("parallel.dispatch is '{}', but must be full, bf16 or fp8", name));
}

}  // namespace minke

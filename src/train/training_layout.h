// How the ranks of a job share a model and its batches: a mesh of pipeline x expert x data
// (parallel/mesh.h), and the schedule that the ranks of a pipeline follow.
//
// The model is cut into stages, one or two for each pipeline rank; the routed experts of a stage
// are spread over its expert ranks. Micro-batches are shared out over the E D pipelines.
#pragma once
#include "parallel/expert_group.h"
#include "parallel/mesh.h"
#include "parallel/schedule.h"
#include "train/recipe.h"

namespace minke {

struct TrainingLayout {
  MeshShape mesh;
  // Of a single pipeline rank 1f1b, or dualpipev, which gives it two stages whose exchanges of
  // experts hide each other.
  ScheduleKind schedule = ScheduleKind::OneFOneB;
};
// Of the recipe's parallel.* on `n_ranks` ranks. ConfigError when they cannot form such a mesh.
TrainingLayout layout_of(const ParallelRecipe& recipe, int n_ranks);

// The stages of the whole model, first to last. ConfigError when it has too few layers.
std::vector<StageRange> stages_of(const TrainingLayout& layout, const ModelConfig& config);
// The numbers of those that a pipeline rank holds, rising.
std::vector<int> held_stages(const TrainingLayout& layout, int pipeline_rank);
// Of the pipeline ranks that hold the same stages (two in dualpipe), the first.
int first_holder(const TrainingLayout& layout, int pipeline_rank);
// What the rank at `place` holds of the model `config`, which is whole before.
void hold_part(const TrainingLayout& layout, const MeshPlace& place, ModelConfig& config);

// ConfigError naming the nearest sizes unless every step of the run gives each pipeline equally
// many whole micro-batches, as many as the schedule takes.
void check_micro_batches(const Recipe& recipe, const TrainingLayout& layout);
// The same, and unless the model can be shared out so.
void check_layout(const Recipe& recipe, const ModelConfig& config, const TrainingLayout& layout);

// "full", "bf16", "fp8"
ExchangeForm parse_exchange_form(std::string_view name);

}  // namespace minke

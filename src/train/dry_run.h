// What a run would do, without doing it: parameters, memory, steps, hours on this machine, and the
// schedule as a table. Needs neither text nor tokenizer (model.vocab_size must then be given).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/run_schedule.h"
#include "train/training_memory.h"
#include "train/training_speed.h"

namespace minke {

struct TextSummary {
  Index documents = 0, bytes = 0, tokens = 0, held_out_tokens = 0;
};

struct DryRun {
  ModelConfig config;
  ParameterCount parameters;
  MeshShape mesh;              // of as few ranks as the recipe's pipeline and experts take
  TrainingMemory memory;       // of its largest rank
  RecomputeRecipe recomputes;  // what is on
  RecomputeSavings recompute;  // of a micro-batch
  std::int64_t steps = 0;
  Index tokens = 0;
  TrainingSpeed speed;
  std::vector<StepSchedule> schedule;  // at token counts, ascending
  std::optional<TextSummary> text;     // where data.paths and data.tokenizer are there
};

// `at`: token counts of the table; empty: where something changes. ConfigError for one that is not
// within the run.
DryRun plan_run(const Recipe& recipe, const std::vector<Index>& at);

void print(const DryRun& run);  // to stdout, for people
nlohmann::ordered_json to_json(const DryRun& run);

}  // namespace minke

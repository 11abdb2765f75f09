// A training run from its recipe to a finished model.
//
//   OUT                            the model, written at the end (train/export.h)
//   OUT.run/metrics.jsonl          one line a step
//   OUT.run/checkpoints/step-N/    the newest checkpoint.keep states (train/train_state.h)
//   OUT.run/lock                   held while a process trains here
//
// A resumed run continues bit for bit: weights, moments, biases, data order and metrics are those
// of a run that was never stopped, on any number of threads, with the same instruction set.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/function_ref.h"
#include "train/recipe.h"

namespace minke {

// From the newest whole checkpoint: if there is one; never (an error if there is one); always (an
// error if there is none).
enum class Resume : std::uint8_t { Auto, Never, Must };
Resume parse_resume(std::string_view name);  // "auto", "never", "must"

struct RunOptions {
  Resume resume = Resume::Auto;
  std::optional<Index> stop_after;  // leave a checkpoint after this step and return
};

// `stop` is asked between micro-batches. When it says true the unfinished step is dropped, a
// checkpoint is written, and Interrupted says how to go on. A loss or gradient that is not finite
// leaves a checkpoint of the state before and throws Error with the step and the first such tensor.
void run_training(const Recipe& recipe, const RunOptions& options, FunctionRef<bool()> stop);

// Where the files of a run lie.
std::filesystem::path run_directory(const Recipe& recipe);

// Prints what a run would do: model, text, steps, memory. Nothing is written.
void describe_run(const Recipe& recipe);

}  // namespace minke

// A training run from its recipe to a finished model.
//
//   OUT                            the model, written at the end (train/export.h)
//   OUT.ema                        the moving average of its weights, with export.ema
//   OUT.run/metrics.jsonl          one line a step, and one an event (train/guard.h)
//   OUT.run/checkpoints/step-N/    the newest checkpoint.keep states (train/train_state.h)
//   OUT.run/lock                   held while a process trains here
//
// A resumed run continues bit for bit: weights, moments, biases, data order and metrics are those
// of a run that was never stopped, on any number of threads, with the same instruction set.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "base/function_ref.h"
#include "parallel/communicator.h"
#include "train/recipe.h"
#include "train/train_state.h"

namespace minke {

// From the newest whole checkpoint: if there is one; never (an error if there is one); always (an
// error if there is none).
enum class Resume : std::uint8_t { Auto, Never, Must };
Resume parse_resume(std::string_view name);  // "auto", "never", "must"

struct RunOptions {
  Resume resume = Resume::Auto;
  std::optional<Index> stop_after;  // leave a checkpoint after this step and return
  // Asked after every step: true once for each checkpoint that somebody wants besides the recipe's.
  // Of several ranks one that says so is enough.
  std::function<bool()> wants_checkpoint = [] { return false; };
  // Sees the gradients of every step before they are judged: where tests put faults.
  std::function<void(TrainState&)> on_gradients = {};
  Communicator* ranks = nullptr;  // that train together, each calling run_training; null: one rank
};

// `stop` is asked between micro-batches. When it says true the unfinished step is dropped, a
// checkpoint is written, and Interrupted says how to go on. A step that is not to be trusted
// (train/guard.h) is skipped, or leaves a checkpoint of the state before and throws Error with
// step, tensor and data position, as the recipe's guard says.
//
// With several ranks (train/ranked_step.h) `stop` is asked at the beginning of each step, and yes
// on one of them stops all. Each reads text and checkpoint itself; rank 0 alone prints, writes
// files and measures the held-out loss. It alone throws what all ranks found alike; the others then
// get RankFailure. Interrupted is thrown on all of them.
void run_training(const Recipe& recipe, const RunOptions& options, FunctionRef<bool()> stop);

// Where the files of a run lie.
std::filesystem::path run_directory(const Recipe& recipe);

}  // namespace minke

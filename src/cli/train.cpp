// minke train: from a recipe to a model, with checkpoints that the next run goes on from.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/train_flags.h"
#include "parallel/agreement.h"
#include "parallel/launched.h"
#include "parallel/mpi.h"
#include "train/dry_run.h"

namespace minke {
namespace {

// Token counts may be written as 14.3e12.
std::vector<Index> whole_numbers(const std::vector<double>& values) {
  std::vector<Index> whole;
  for (double value : values) {
    if (value != std::floor(value) || value > 0x1p53)
      throw UsageError(fmt::format("--at {}: must be a whole number of tokens", value));
    whole.push_back(static_cast<Index>(value));
  }
  return whole;
}

// The longest wait for another rank before the recipe is read together, MPI_Init included: that of
// the recipe. What is wrong with it is said then, once.
std::chrono::milliseconds first_timeout(FunctionRef<Recipe()> load) {
  try {
    return load().timeout();
  } catch (const std::exception&) {
    return Recipe().timeout();
  }
}

// On all ranks that a launcher started, or on this one. An interrupted job ends as one process
// does, with one message: of rank 0, before MPI ends, since mpirun then ends all ranks as soon as
// it sees the status of one.
void train(RunOptions options, FunctionRef<Recipe()> load) {
  bool interrupted = false;
  const InterruptScope interrupt;
  AskScope ask;
  options.wants_checkpoint = [&] { return ask.take(); };
  const MpiSettings settings{.timeout = first_timeout(load)};
  const auto body = [&](Communicator& ranks) {
    Recipe recipe;
    first_then_others(ranks, [&] { recipe = load(); });
    options.ranks = &ranks;
    bool told = false;
    try {
      run_training(recipe, options, [&] {
        if (interrupt.requested() && !told) {
          if (ranks.rank() == 0)
            log_info("stopping: a checkpoint follows (Ctrl-C once more leaves at once)");
          told = true;
        }
        return told;
      });
    } catch (const Interrupted& e) {
      if (ranks.rank() == 0) log_info(e.what());
      interrupted = true;
    }
  };
  run_world(body, settings);
  if (interrupted) throw Interrupted("");
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* cmd = app.add_subcommand(
      "train",
      "Train a model from text; Ctrl-C leaves a checkpoint that a second run goes on from");
  const auto flags = add_train_flags(*cmd);
  cmd->callback([flags] {
    const RunOptions options = flags->run_options();
    if (flags->dry_run) {
      if (launched_process().rank > 0) return;
      const DryRun run = plan_run(flags->load_recipe(), whole_numbers(flags->at));
      if (flags->json)
        fmt::print("{}\n", to_json(run).dump(2));
      else
        print(run);
      return;
    }
    train(options, [flags] {
      Recipe recipe = flags->load_recipe();
      recipe.check_runnable();
      return recipe;
    });
  });
}

}  // namespace minke

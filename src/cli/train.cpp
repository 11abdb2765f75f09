// minke train: from a recipe to a model, with checkpoints that the next run goes on from.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "parallel/agreement.h"
#include "parallel/mpi.h"
#include "train/dry_run.h"
#include "train/loop.h"

namespace minke {
namespace {

std::string recipe_help() {
  Recipe defaults;
  const OptionList list(defaults);
  const nlohmann::ordered_json values = options_to_json(list);
  std::string text =
      "Settings of a recipe, as keys of the JSON file and for --set, with their defaults:\n";
  for (const Option& option : list.options()) {
    std::string pointer = "/" + option.name;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    text += fmt::format("  {:<32}{} [{}]\n", option.name, option.description,
                        values.at(nlohmann::ordered_json::json_pointer(pointer)).dump());
  }
  return text;
}

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

// On all ranks that a launcher started, or on this one. An interrupted job ends as one process
// does, with one message, of rank 0.
void train(RunOptions options, FunctionRef<Recipe()> load) {
  std::optional<Interrupted> interrupted;
  run_world([&](Communicator& ranks) {
    const InterruptScope interrupt;
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
      interrupted = ranks.rank() == 0 ? e : Interrupted("");
    }
  });
  if (interrupted) throw *interrupted;
}

}  // namespace

void add_train(CLI::App& app) {
  struct Options {
    std::string recipe, resume = "auto";
    std::optional<std::string> out;  // given but empty, it is refused as a recipe's would be
    std::string init_from;
    std::vector<std::string> settings;
    std::int64_t steps = 0, stop_after = 0;
    std::vector<double> at;
    bool dry_run = false, json = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand(
      "train",
      "Train a model from text; Ctrl-C leaves a checkpoint that a second run goes on from");
  cmd->add_option("recipe", o->recipe, "JSON file with the run's settings")->required();
  cmd->add_option("--set", o->settings, "NAME=VALUE: another value for a setting of the recipe")
      ->type_name("NAME=VALUE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  cmd->add_option("--out", o->out,
                  "directory of the finished model (recipe: out); the run's files "
                  "are in OUT.run");
  cmd->add_option("--init-from", o->init_from,
                  "model directory whose weights the run starts from, with fresh moments (recipe: "
                  "init_from); the recipe then gives no model.*");
  cmd->add_option("--resume", o->resume,
                  "from the newest checkpoint in OUT.run: auto (if there is one), never, must")
      ->capture_default_str();
  cmd->add_option("--steps", o->steps, "steps of the whole run (recipe: steps)")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--stop-after", o->stop_after,
                  "leave a checkpoint after this step; the schedule stays that of the whole run")
      ->check(CLI::PositiveNumber);
  CLI::Option* dry_run = cmd->add_flag("--dry-run", o->dry_run,
                                       "print parameters, memory, hours and the schedule; writes "
                                       "nothing, needs no text or tokenizer");
  cmd->add_option("--at", o->at,
                  "token counts at which --dry-run shows the schedule [where something changes]")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->needs(dry_run);
  cmd->add_flag("--json", o->json, "--dry-run as JSON")->needs(dry_run);
  cmd->footer(recipe_help);
  cmd->callback([o] {
    std::vector<std::string> settings = o->settings;
    if (o->out) settings.push_back("out=" + *o->out);
    if (!o->init_from.empty()) settings.push_back("init_from=" + o->init_from);
    if (o->steps > 0) {
      settings.push_back("tokens=0");
      settings.push_back("steps=" + std::to_string(o->steps));
    }
    const RunOptions options{
        .resume = parse_resume(o->resume),
        .stop_after = o->stop_after > 0 ? std::optional<Index>(o->stop_after) : std::nullopt};
    if (o->dry_run) {
      const DryRun run = plan_run(Recipe::load(o->recipe, settings), whole_numbers(o->at));
      if (o->json)
        fmt::print("{}\n", to_json(run).dump(2));
      else
        print(run);
      return;
    }
    train(options, [&] {
      Recipe recipe = Recipe::load(o->recipe, settings);
      recipe.check_runnable();
      return recipe;
    });
  });
}

}  // namespace minke

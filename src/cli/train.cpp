// minke train: from a recipe to a model, with checkpoints that the next run goes on from.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
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

}  // namespace

void add_train(CLI::App& app) {
  struct Options {
    std::string recipe, resume = "auto";
    std::optional<std::string> out;  // given but empty, it is refused as a recipe's would be
    std::vector<std::string> settings;
    std::int64_t steps = 0, stop_after = 0;
    bool dry_run = false;
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
  cmd->add_option("--resume", o->resume,
                  "from the newest checkpoint in OUT.run: auto (if there is one), never, must")
      ->capture_default_str();
  cmd->add_option("--steps", o->steps, "steps of the whole run (recipe: steps)")
      ->check(CLI::PositiveNumber);
  cmd->add_option("--stop-after", o->stop_after,
                  "leave a checkpoint after this step; the schedule stays that of the whole run")
      ->check(CLI::PositiveNumber);
  cmd->add_flag("--dry-run", o->dry_run, "print model, text, steps and memory, and write nothing");
  cmd->footer(recipe_help);
  cmd->callback([o] {
    std::vector<std::string> settings = o->settings;
    if (o->out) settings.push_back("out=" + *o->out);
    if (o->steps > 0) {
      settings.push_back("tokens=0");
      settings.push_back("steps=" + std::to_string(o->steps));
    }
    const RunOptions options{
        .resume = parse_resume(o->resume),
        .stop_after = o->stop_after > 0 ? std::optional<Index>(o->stop_after) : std::nullopt};
    const Recipe recipe = Recipe::load(o->recipe, settings);
    if (o->dry_run) {
      describe_run(recipe);
      return;
    }
    const InterruptScope interrupt;
    bool told = false;
    run_training(recipe, options, [&] {
      if (interrupt.requested() && !told) {
        log_info("stopping: a checkpoint follows (Ctrl-C once more leaves at once)");
        told = true;
      }
      return told;
    });
  });
}

}  // namespace minke

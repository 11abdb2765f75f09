#include "cli/train_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "base/log.h"
#include "plan/rank_trace.h"

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

Recipe TrainFlags::load_recipe() const {
  std::vector<std::string> all = settings;
  if (out) all.push_back("out=" + *out);
  if (!init_from.empty()) all.push_back("init_from=" + init_from);
  if (steps > 0) {
    all.push_back("tokens=0");
    all.push_back("steps=" + std::to_string(steps));
  }
  return Recipe::load(recipe, all);
}

RunOptions TrainFlags::run_options() const {
  RunOptions options{
      .resume = parse_resume(resume),
      .stop_after = stop_after > 0 ? std::optional<Index>(stop_after) : std::nullopt};
  if (trace > 0)
    options.trace = StepTrace{trace, [this](const auto& ranks) { write_trace(ranks); }};
  return options;
}

void TrainFlags::write_trace(const std::vector<std::vector<TimelineEvent>>& ranks) const {
  const std::filesystem::path path =
      run_directory(load_recipe()) / fmt::format("trace-step-{}.json", trace);
  std::string text;
  write_rank_trace(fmt::format("step {}", trace), ranks,
                   [&](std::string_view part) { text += part; });
  write_file_atomic(path, text);
  log_info(fmt::format("{} is for chrome://tracing or Perfetto", path.string()));
  std::istringstream report(rank_report(shares_of(ranks)));
  for (std::string line; std::getline(report, line);) log_info(line);
}

std::shared_ptr<TrainFlags> add_train_flags(CLI::App& command) {
  const auto flags = std::make_shared<TrainFlags>();
  command.add_option("recipe", flags->recipe, "JSON file with the run's settings")->required();
  command
      .add_option("--set", flags->settings, "NAME=VALUE: another value for a setting of the recipe")
      ->type_name("NAME=VALUE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command.add_option("--out", flags->out,
                     "directory of the finished model (recipe: out); the run's files "
                     "are in OUT.run");
  command.add_option(
      "--init-from", flags->init_from,
      "model directory whose weights the run starts from, with fresh moments (recipe: "
      "init_from); the recipe then gives no model.*");
  command
      .add_option("--resume", flags->resume,
                  "from the newest checkpoint in OUT.run: auto (if there is one), never, must")
      ->capture_default_str();
  command.add_option("--steps", flags->steps, "steps of the whole run (recipe: steps)")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--stop-after", flags->stop_after,
                  "leave a checkpoint after this step; the schedule stays that of the whole run")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--trace", flags->trace,
                  "of several ranks: write what each did in this step to OUT.run/trace-step-N.json "
                  "(a Chrome trace), and say how long it was idle and which exchanges were hidden")
      ->check(CLI::PositiveNumber);
  CLI::Option* dry_run =
      command.add_flag("--dry-run", flags->dry_run,
                       "print parameters, memory, hours and the schedule; writes "
                       "nothing, needs no text or tokenizer");
  command
      .add_option("--at", flags->at,
                  "token counts at which --dry-run shows the schedule [where something changes]")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->needs(dry_run);
  command.add_flag("--json", flags->json, "--dry-run as JSON")->needs(dry_run);
  command.footer(recipe_help);
  return flags;
}

}  // namespace minke

// minke plan: what a cluster run will be like, before it is rented. Each question is a subcommand
// of its own file.
#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/plan.h"

namespace minke {

void add_plan(CLI::App& app) {
  CLI::App* plan =
      app.add_subcommand("plan", "plans a cluster run: memory, traffic, schedules, hours, dollars");
  plan->require_subcommand(1);
  add_plan_schedule(*plan);
  add_plan_eplb(*plan);
  add_plan_model_commands(*plan);
}

}  // namespace minke

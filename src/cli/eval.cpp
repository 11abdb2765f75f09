// minke eval: measures a model on a task.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/commands.h"
#include "cli/eval_task.h"
#include "cli/over_ranks.h"

namespace minke {

void add_eval(CLI::App& app) {
  const auto o = std::make_shared<EvalOptions>();
  CLI::App* cmd = app.add_subcommand(
      "eval", "Measure a model: bits per byte of any text, acceptance of its own drafts");
  OptionList options(*o);
  add_flags(*cmd, options);
  cmd->get_option("--model")->required();
  cmd->callback([o] {
    over_ranks(o->model, [&](ModelCaller* ranks) {
      if (o->task == "bpb")
        eval_bits_per_byte(*o, ranks);
      else
        eval_mtp_acceptance(*o, ranks);
    });
  });
}

}  // namespace minke

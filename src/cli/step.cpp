// minke step: training steps on given tokens, everything they compute in one file.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/commands.h"
#include "train/step_record.h"

namespace minke {

void add_step(CLI::App& app) {
  struct Options {
    std::string model, batch, config, out;
    std::int64_t steps = 1;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand(
      "step", "Run training steps on given tokens and write losses, gradients and parameters");
  cmd->add_option("--model", o->model, "directory with config.json and weights")->required();
  cmd->add_option("--batch", o->batch, "safetensors file with I64 tokens [steps, B, T+1]")
      ->required();
  cmd->add_option("--steps", o->steps, "steps to run")->capture_default_str();
  cmd->add_option("--config", o->config,
                  "JSON object with lr, beta1, beta2, eps, weight_decay, clip, alpha, gamma, "
                  "mtp_lambda; and, if wanted, compute (fp64, the default: everything in "
                  "double; fp32 or bf16: as training does) and moments (bf16, fp32, fp64; "
                  "default fp64 with compute fp64, else fp32)")
      ->required();
  cmd->add_option("--out", o->out, "safetensors file to write")->required();
  cmd->callback(
      [o] { record_steps(o->model, o->batch, o->steps, StepSettings::load(o->config), o->out); });
}

}  // namespace minke

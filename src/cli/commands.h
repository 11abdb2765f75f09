// One function a subcommand: registers it, its flags with their defaults, and what it does.
#pragma once
#include "base/error.h"

namespace CLI {
class App;
}

namespace minke {

// Thrown by a command that has said already what went wrong: nothing more is printed.
struct CommandFailed : Error {
  explicit CommandFailed(int exit_status = 1) : Error(""), status(exit_status) {}
  int status;
};

void add_info(CLI::App& app);
void add_forward(CLI::App& app);
void add_step(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_train_tokenizer(CLI::App& app);
void add_data(CLI::App& app);
void add_train(CLI::App& app);
void add_launch(CLI::App& app);
void add_report(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_serve(CLI::App& app);
void add_eval(CLI::App& app);
void add_convert(CLI::App& app);
void add_bench(CLI::App& app);
void add_plan(CLI::App& app);

}  // namespace minke

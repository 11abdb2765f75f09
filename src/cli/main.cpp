// minke COMMAND: parses, checks, calls one function, and turns errors into one line and a status.
//   0 done   1 an error that the message explains   2 wrong use of the command line
//   75 a rank lost another one   130 interrupted
#include <CLI/CLI.hpp>

#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "ops/isa.h"
#include "parallel/launched.h"

namespace {

int report(const std::string& message, int status) {
  if (!message.empty()) std::fprintf(stderr, "minke: %s\n", minke::readable_line(message).c_str());
  return status;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string said_by_system(const std::filesystem::filesystem_error& e) {
  return "cannot use " + e.path1().string() + ": " + e.code().message();
}

bool has_command(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    if (command->get_name() == name) return true;
  return false;
}

// Several processes that a launcher started would do the same work, into the same files.
void refuse_several_ranks(const CLI::App& app) {
  const int n = minke::launched_process().size;
  if (n == 1) return;
  for (const CLI::App* command : app.get_subcommands()) {
    const std::string name = command->get_name();
    if (name != "info" && name != "train" && name != "generate" && name != "chat" &&
        name != "serve" && name != "eval")
      throw minke::UsageError("minke " + name + " runs in one process, but " + std::to_string(n) +
                              " were started; start it without mpirun or srun");
  }
}

void add_global_flags(CLI::App& app) {
  app.set_version_flag("--version", std::string("minke ") + MINKE_VERSION);
  app.add_option_function<std::string>(
         "--isa", [](const std::string& name) { minke::choose_isa(minke::parse_isa(name)); },
         "instruction set of the fast forms: scalar, avx2, avx512 or amx")
      ->type_name("NAME")
      ->default_str("the best this processor has");
  app.add_option_function<int>(
         "--threads", [](const int& n) { minke::set_threads(n); }, "threads that compute together")
      ->check(CLI::Range(1, 4096))
      ->default_str(std::to_string(minke::available_cores()));
}

int run(int argc, char** argv) {
  CLI::App app{
      "minke: the DeepSeek-V3 system. Trains, generates, serves, evaluates and converts models of "
      "the\n"
      "deepseek_v3 architecture, and reads and writes the published checkpoints unchanged.",
      "minke"};
  app.require_subcommand(1);
  app.fallthrough();
  app.get_formatter()->column_width(34);
  add_global_flags(app);
  minke::add_info(app);
  minke::add_train_tokenizer(app);
  minke::add_data(app);
  minke::add_train(app);
  minke::add_launch(app);
  minke::add_report(app);
  minke::add_generate(app);
  minke::add_chat(app);
  minke::add_serve(app);
  minke::add_eval(app);
  minke::add_convert(app);
  minke::add_bench(app);
  minke::add_plan(app);
  minke::add_tokenize(app);
  minke::add_forward(app);
  minke::add_step(app);
  if (argc > 1 && argv[1][0] != '-' && !has_command(app, argv[1]))
    throw minke::UsageError(std::string("there is no command '") + argv[1] +
                            "'; minke --help lists them");
  app.parse_complete_callback([&app] { refuse_several_ranks(app); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0)  // --help, --version: once a job
      return minke::launched_process().rank == 0 ? app.exit(e, std::cout, std::cerr) : 0;
    const auto chosen = app.get_subcommands();
    const std::string command = chosen.empty() ? "" : chosen[0]->get_name() + " ";
    throw minke::UsageError(one_line(e.what()) + "; see minke " + command + "--help");
  }
  // What was printed must have arrived: a full disk behind stdout is an error.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) || !std::cout.flush())
    return report("cannot write to standard output", 1);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (!std::setlocale(LC_ALL, "")) std::setlocale(LC_ALL, "C.UTF-8");
  std::setlocale(LC_NUMERIC, "C");
  std::signal(SIGXFSZ,
              SIG_IGN);  // a limit on file sizes is an error of writing, for stderr as well
  try {
    return run(argc, argv);
  } catch (const minke::UsageError& e) {  // of all ranks the same, so one says it
    return report(minke::launched_process().rank == 0 ? e.what() : "", 2);
  } catch (const minke::Interrupted& e) {
    return report(e.what(), 130);
  } catch (const minke::CommandFailed& e) {
    return e.status;
  } catch (const minke::Error& e) {
    return report(e.what(), 1);
  } catch (const std::bad_alloc&) {
    return report("not enough memory; `minke info --model DIR` says what a model needs", 1);
  } catch (const std::filesystem::filesystem_error& e) {
    return report(said_by_system(e), 1);
  } catch (const std::exception& e) {
    return report(std::string("internal error: ") + e.what(), 1);
  }
}

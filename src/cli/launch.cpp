// minke launch ... train RECIPE ...: a training job on several ranks that is started again when it
// fails.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/child_process.h"
#include "base/error.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cli/launched_job.h"
#include "cli/train_flags.h"
#include "parallel/job_status.h"
#include "parallel/mpi.h"
#include "parallel/mpirun.h"
#include "train/ranked_step.h"

namespace minke {
namespace {

struct LaunchFlags {
  int ranks = 0, least_ranks = 0, restarts = 3;
  std::string hosts, hostfile, mpirun_flags;
};

// What was given of the options of `command`, to be read by it again.
std::vector<std::string> given_options(const CLI::App& command) {
  std::vector<std::string> words;
  for (const CLI::Option* option :
       command.get_options([](const CLI::Option* o) { return o->count() > 0; }))
    for (const std::string& value : option->results()) {
      if (option->get_positional()) {
        words.push_back(value);
      } else {
        words.push_back("--" + option->get_lnames().front() + (value.empty() ? "" : "=" + value));
        if (value.empty()) words.push_back(value);
      }
    }
  return words;
}

bool in_slurm() {
  return std::getenv("SLURM_JOB_ID") != nullptr;
}

JobShape shape_of(const LaunchFlags& flags) {
  JobShape shape{flags.ranks, {}};
  if (!flags.hosts.empty()) shape.hosts = parse_hosts(flags.hosts);
  if (!flags.hostfile.empty()) shape.hosts = read_hostfile(flags.hostfile);
  const int slots = total_slots(shape.hosts);
  if (shape.ranks == 0) shape.ranks = slots;
  if (const char* tasks = std::getenv("SLURM_NTASKS"); shape.ranks == 0 && tasks)
    shape.ranks = std::atoi(tasks);
  if (shape.ranks < 1) throw UsageError("say on how many ranks: --ranks N, or --hosts a:2,b:2");
  if (!shape.hosts.empty() && shape.ranks > slots)
    throw UsageError(fmt::format("--ranks is {}, but {} has {} slots; give the hosts more",
                                 shape.ranks, to_string(shape.hosts), slots));
  return shape;
}

void check_mpirun() {
  if (mpi_version().empty())
    throw ConfigError(
        "minke was built without MPI; build it where libopenmpi-dev is installed, or train on one "
        "rank with minke train");
  try {
    const ChildProcess asked({"mpirun", "--version"}, ChildProcess::Output::Dropped);
  } catch (const IoError& e) {
    throw ConfigError(
        fmt::format("{}; install Open MPI (Debian: openmpi-bin) on every host", e.what()));
  }
}

// Each rank gets the flags of minke and of train that were given here. Where all ranks share this
// machine they share its cores.
LaunchedProgram program_of(const CLI::App& app, const CLI::App& train, const TrainFlags& flags,
                           const LaunchFlags& launch, const JobShape& shape) {
  LaunchedProgram program;
  program.path = std::filesystem::read_symlink("/proc/self/exe");
  program.cores = in_slurm() ? 0 : available_cores();
  program.mpirun_flags = split_words(launch.mpirun_flags);
  program.arguments = given_options(app);
  if (shape.hosts.empty() && program.cores > 0 && app.get_option("--threads")->count() == 0)
    program.arguments.push_back(
        fmt::format("--threads={}", std::max(1, program.cores / shape.ranks)));
  program.arguments.emplace_back("train");
  const std::vector<std::string> of_train = given_options(train);
  program.arguments.insert(program.arguments.end(), of_train.begin(), of_train.end());
  program.again = program.arguments;
  if (flags.resume == "never")  // it held for the first start
    std::replace(program.again.begin(), program.again.end(), std::string("--resume=never"),
                 std::string("--resume=auto"));
  return program;
}

void launch(const CLI::App& app, const CLI::App& train, const TrainFlags& flags,
            const LaunchFlags& launch) {
  if (flags.dry_run) throw UsageError("launch starts a job; for --dry-run use minke train");
  (void)flags.run_options();
  const Recipe recipe = flags.load_recipe();
  recipe.check_runnable();
  const Supervision supervision{
      .shape = shape_of(launch), .least_ranks = launch.least_ranks, .restarts = launch.restarts};
  if (launch.least_ranks > supervision.shape.ranks)
    throw UsageError(fmt::format("--min-ranks is {}, but there are {} ranks at most",
                                 launch.least_ranks, supervision.shape.ranks));
  check_micro_batches(recipe, supervision.shape.ranks);
  check_mpirun();
  const LaunchedProgram program = program_of(app, train, flags, launch, supervision.shape);
  const InterruptScope interrupt;
  AskScope ask;
  LaunchedJob job(program, recipe, interrupt, ask);
  const int status = supervise(job, supervision);
  if (status == 0) return;
  throw CommandFailed(end_of(status) == JobEnd::Failed ? kRankFailureStatus : status);
}

}  // namespace

void add_launch(CLI::App& app) {
  const auto o = std::make_shared<LaunchFlags>();
  CLI::App* cmd = app.add_subcommand(
      "launch",
      "Train on several ranks with mpirun; a job that fails goes on from its newest checkpoint");
  cmd->add_option("-n,--ranks", o->ranks, "ranks of the job [the slots of all hosts]")
      ->check(CLI::Range(1, 1 << 20));
  CLI::Option* hosts = cmd->add_option("--hosts", o->hosts,
                                       "hosts and their slots, as a:2,b:2 [this machine, or those "
                                       "of the Slurm job]");
  CLI::Option* hostfile =
      cmd->add_option("--hostfile", o->hostfile, "or a file with a line 'a slots=2' for each");
  hostfile->excludes(hosts);
  cmd->add_option("--restarts", o->restarts, "restarts at most without a new checkpoint")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--min-ranks", o->least_ranks,
                  "ranks that the job may go on with when hosts do not answer [all]")
      ->check(CLI::Range(1, 1 << 20));
  cmd->add_option("--mpirun", o->mpirun_flags, "further flags of mpirun, in quotes");
  cmd->require_subcommand(1);
  CLI::App* train = cmd->add_subcommand("train", "as minke train, on every rank");
  const auto flags = add_train_flags(*train);
  train->callback([o, flags, train, &app] {
    if (o->least_ranks > 0 && o->hosts.empty() && o->hostfile.empty())
      throw UsageError(
          "--min-ranks leaves out hosts that do not answer; give --hosts or --hostfile");
    launch(app, *train, *flags, *o);
  });
}

}  // namespace minke

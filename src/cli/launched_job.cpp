#include "cli/launched_job.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "base/child_process.h"
#include "base/error.h"
#include "base/log.h"
#include "parallel/mpirun.h"
#include "train/loop.h"
#include "train/ranked_step.h"
#include "train/train_state.h"

namespace minke {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::seconds kEnd{30};     // for mpirun, after the first rank's end
constexpr std::chrono::seconds kAnswer{20};  // for a host, to start a program

// The ranks on this machine, followed from mpirun's start to their end.
class LocalRanks {
 public:
  LocalRanks(int mpirun, std::string program) : mpirun_(mpirun), program_(std::move(program)) {}

  // Whether one has been gone for longer than kEnd.
  bool ended_long_ago() {
    const std::vector<int> now = ranks_started_by(mpirun_, program_);
    if (now.size() < ranks_.size() && !one_ended_) one_ended_ = Clock::now();
    if (!one_ended_) ranks_ = now;
    return one_ended_ && Clock::now() - *one_ended_ > kEnd;
  }

  // Those that outlive mpirun would hold the run's lock.
  void end_all() const {
    for (const int rank : ranks_)
      if (runs_program(rank, program_)) ::kill(rank, SIGKILL);
    const auto late = Clock::now() + kEnd;
    while (Clock::now() < late && std::any_of(ranks_.begin(), ranks_.end(), [&](int rank) {
             return runs_program(rank, program_);
           }))
      std::this_thread::sleep_for(kLook);
  }

 private:
  const int mpirun_;
  const std::string program_;
  std::vector<int> ranks_;
  std::optional<Clock::time_point> one_ended_;
};

}  // namespace

LaunchedJob::LaunchedJob(const LaunchedProgram& program, const Recipe& recipe,
                         const InterruptScope& interrupt, AskScope& ask)
    : program_(program),
      recipe_(recipe),
      interrupt_(interrupt),
      ask_(ask),
      checkpoints_(run_directory(recipe) / "checkpoints") {}

int LaunchedJob::run(const JobShape& shape, bool again) {
  std::vector<std::string> words{program_.path};
  const std::vector<std::string>& arguments = again ? program_.again : program_.arguments;
  words.insert(words.end(), arguments.begin(), arguments.end());
  ChildProcess mpirun(mpirun_command(shape, program_.cores, program_.mpirun_flags, words));
  LocalRanks ranks(mpirun.id(), program_.path);
  for (bool told = false; !mpirun.status(); std::this_thread::sleep_for(kLook)) {
    if (ask_.take()) mpirun.signal(SIGUSR1);
    if (interrupt_.requested() && !told) {
      mpirun.signal(SIGUSR2);
      told = true;
    }
    if (ranks.ended_long_ago()) {
      say(
          fmt::format("mpirun is still there {} s after a rank has ended, probably waiting for a "
                      "host that cannot be reached; it is killed",
                      kEnd.count()));
      mpirun.kill();
    }
  }
  ranks.end_all();
  return *mpirun.status();
}

void LaunchedJob::pause(std::chrono::seconds seconds) {
  const auto end = Clock::now() + seconds;
  while (Clock::now() < end && !stop_requested()) std::this_thread::sleep_for(kLook);
}

std::vector<HostSlots> LaunchedJob::answering(const std::vector<HostSlots>& hosts) {
  std::vector<std::unique_ptr<ChildProcess>> questions;
  for (const HostSlots& host : hosts)
    questions.push_back(std::make_unique<ChildProcess>(
        mpirun_command({1, {host}}, program_.cores, program_.mpirun_flags, {"true"}),
        ChildProcess::Output::Dropped));
  const auto open = [](const auto& question) { return !question->status(); };
  const auto late = Clock::now() + kAnswer;
  while (Clock::now() < late && std::any_of(questions.begin(), questions.end(), open))
    std::this_thread::sleep_for(kLook);
  std::vector<HostSlots> here;
  for (std::size_t i = 0; i < hosts.size(); ++i)
    if (questions[i]->status() == 0) here.push_back(hosts[i]);
  return here;
}

bool LaunchedJob::can_run_on(int ranks) const {
  try {
    check_micro_batches(recipe_, ranks);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

std::int64_t LaunchedJob::newest_checkpoint() const {
  return newest_complete_step(checkpoints_);
}

std::string LaunchedJob::checkpoint_name(std::int64_t step) const {
  return (checkpoints_ / fmt::format("step-{}", step)).string();
}

void LaunchedJob::say(std::string_view line) {
  log_info(fmt::format("launch: {}", line));
}

}  // namespace minke

// A training job under mpirun, as its supervisor sees it.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "parallel/supervision.h"
#include "train/recipe.h"

namespace minke {

struct LaunchedProgram {
  std::string path;                    // of minke itself, on all hosts
  std::vector<std::string> arguments;  // of each rank
  std::vector<std::string> again;      // of each rank when it goes on
  std::vector<std::string> mpirun_flags = {};
  int cores = 0;  // as for mpirun_command
};

class LaunchedJob final : public SupervisedJob {
 public:
  // All must outlive the job.
  LaunchedJob(const LaunchedProgram& program, const Recipe& recipe, const InterruptScope& interrupt,
              AskScope& ask);

  // Asks all ranks for a checkpoint and their end when a stop was requested (SIGUSR2, which mpirun
  // passes on), for a checkpoint alone when this process was (SIGUSR1). mpirun is killed when it is
  // still there long after the first rank of this machine has ended: it waits for hosts that cannot
  // be reached.
  int run(const JobShape& shape, bool again) override;
  bool stop_requested() const override { return interrupt_.requested(); }
  void pause(std::chrono::seconds seconds) override;
  // Those on which mpirun can start a program within some seconds.
  std::vector<HostSlots> answering(const std::vector<HostSlots>& hosts) override;
  bool can_run_on(int ranks) const override;
  std::int64_t newest_checkpoint() const override;
  std::string checkpoint_name(std::int64_t step) const override;
  void say(std::string_view line) override;

 private:
  const LaunchedProgram& program_;
  const Recipe& recipe_;
  const InterruptScope& interrupt_;
  AskScope& ask_;
  const std::filesystem::path checkpoints_;
};

}  // namespace minke

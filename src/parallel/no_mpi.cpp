// A build without MPI: one rank is the world.
#include <fmt/format.h>

#include <cstdlib>

#include "parallel/mpi.h"

namespace minke {
namespace {

// As the launchers tell the processes that they start.
int launched_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 1;
}

}  // namespace

std::string mpi_version() {
  return "";
}

std::unique_ptr<Communicator> world(const MpiSettings&) {
  if (const int n = launched_ranks(); n > 1)
    throw ConfigError(fmt::format(
        "this process is one of {} ranks, but minke was built without MPI; build it where "
        "libopenmpi-dev is installed, or start it alone",
        n));
  return one_rank();
}

void run_world(FunctionRef<void(Communicator&)> body, const MpiSettings& settings) {
  body(*world(settings));
}

}  // namespace minke

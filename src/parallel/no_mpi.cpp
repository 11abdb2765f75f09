// A build without MPI: one rank is the world.
#include <fmt/format.h>

#include "parallel/launched.h"
#include "parallel/mpi.h"

namespace minke {

std::string mpi_version() {
  return "";
}

std::unique_ptr<Communicator> world(const MpiSettings&) {
  if (const int n = launched_process().size; n > 1)
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

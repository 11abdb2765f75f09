#include "parallel/launched.h"

#include <cstdlib>
#include <initializer_list>

namespace minke {

LaunchedProcess launched_process() {
  struct Names {
    const char *rank, *size;
  };
  for (const Names names :
       {Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, Names{"PMI_RANK", "PMI_SIZE"},
        Names{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}}) {
    const char *rank = std::getenv(names.rank), *size = std::getenv(names.size);
    if (rank && size) return {std::atoi(rank), std::atoi(size)};
  }
  return {};
}

}  // namespace minke

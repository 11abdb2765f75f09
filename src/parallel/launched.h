// What a launcher (mpirun, srun) tells the processes that it starts, known before MPI begins.
#pragma once

namespace minke {

struct LaunchedProcess {
  int rank = 0, size = 1;
};
// From the environment; the only one where no launcher has said anything.
LaunchedProcess launched_process();

}  // namespace minke

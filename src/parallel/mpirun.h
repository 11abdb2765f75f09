// The command line that starts a job with Open MPI's mpirun.
#pragma once
#include <string>
#include <vector>

#include "parallel/supervision.h"

namespace minke {

// `flags` are handed to mpirun, `program` is what each rank runs. Ranks are bound to no core, since
// a rank has threads of its own.
//
// Without hosts they run on this machine: more of them than its `cores` are allowed, and then yield
// while they wait. With 0 cores they run where a batch system says, which mpirun asks itself.
//
// With hosts, mpirun asks each after 10 s of silence whether it is there, and ends the job when it
// has not answered for 20 s more; by itself it would wait for 8 minutes.
std::vector<std::string> mpirun_command(const JobShape& shape, int cores,
                                        const std::vector<std::string>& flags,
                                        const std::vector<std::string>& program);

// Of several words as a shell splits them, without quotes: at blanks.
std::vector<std::string> split_words(const std::string& text);

// Whether process `id` is there and runs `program`, an absolute path.
bool runs_program(int id, const std::string& program);
// Processes that run `program` and were started by process `mpirun`: the ranks on this machine.
std::vector<int> ranks_started_by(int mpirun, const std::string& program);

}  // namespace minke

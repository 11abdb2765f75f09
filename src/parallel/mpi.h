// The communicator over MPI, and the world of a process: all ranks when a launcher (mpirun, srun)
// started it, else one rank. no_mpi.cpp has the same functions for builds without MPI.
//
// Open MPI moves messages only while some thread is inside MPI, so a thread of each process looks
// into it while messages are under way; without that nothing is hidden behind computation. Messages
// are cut into pieces, since MPI counts bytes with 31 bits.
//
// Two errors of a caller that MPI hides: a message of a rank to itself that is longer than its
// receive is cut (Open MPI 4.1), and of sizes that differ by whole pieces only the pieces are
// missed.
//
// Any failure ends the whole job: Open MPI as packaged ends the survivors of a dead process itself,
// and what it cannot see (a rank that is stuck, a lost link) is a wait that takes too long. The
// exit status tells a launcher which it was: kRankFailureStatus (parallel/job_status.h) when this
// rank lost another one, else 1.
#pragma once
#include "base/function_ref.h"
#include "parallel/communicator.h"

namespace minke {

struct MpiSettings {
  std::size_t piece_bytes = std::size_t{1} << 30;  // of one MPI message at most, below 2^31
  std::chrono::microseconds poll{100};             // between two looks of the progress thread
  // Of every wait until set_timeout says another one, MPI_Init included; 0: for ever.
  std::chrono::milliseconds timeout{0};
};

// The first line that the library says of itself, or "" when minke was built without MPI.
std::string mpi_version();

// To be called once in a process; MPI ends with the last communicator. ConfigError when MPI offers
// no threads, or when a launcher started several ranks and minke was built without MPI: each would
// believe to be the only one.
std::unique_ptr<Communicator> world(const MpiSettings& settings = {});

// Runs body on the world. An exception ends all ranks, with its message and this rank's place; with
// one rank it is thrown again.
void run_world(FunctionRef<void(Communicator&)> body, const MpiSettings& settings = {});

}  // namespace minke

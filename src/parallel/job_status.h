// How a job of several ranks ended, by the exit status that mpirun hands on: what a launcher
// decides by. Statuses of one process are in cli/main.cpp.
//
//   0                 done
//   130               stopped by its user, with a checkpoint
//   1, 2              refused or given up with an error that its message explains; the same start
//                     would meet it again. Also mpirun's own when it cannot start on a host.
//   75                a rank waited too long for another one, or lost it (EX_TEMPFAIL of
//   sysexits.h) 128 + a signal    a process was killed 205               mpirun lost a host; so any
//   other status: the job failed
#pragma once
#include <cstdint>
#include <string>

namespace minke {

inline constexpr int kInterruptedStatus = 130;
inline constexpr int kRankFailureStatus = 75;

enum class JobEnd : std::uint8_t { Done, Stopped, Refused, Failed };
JobEnd end_of(int status);

// "a process was ended by signal 9 (Killed)"
std::string words_of_status(int status);

}  // namespace minke

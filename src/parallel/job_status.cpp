#include "parallel/job_status.h"

#include <fmt/format.h>

#include <cstring>

namespace minke {

JobEnd end_of(int status) {
  switch (status) {
    case 0:
      return JobEnd::Done;
    case kInterruptedStatus:
      return JobEnd::Stopped;
    case 1:
    case 2:
      return JobEnd::Refused;
    default:
      return JobEnd::Failed;
  }
}

std::string words_of_status(int status) {
  constexpr int kLostDaemon = 205, kSignalled = 128, kLastSignal = 31;
  if (status == kRankFailureStatus) return "a rank waited for another one in vain";
  if (status == kLostDaemon) return "a host was lost (mpirun's status 205)";
  if (status > kSignalled && status <= kSignalled + kLastSignal)
    return fmt::format("a process was ended by signal {} ({})", status - kSignalled,
                       strsignal(status - kSignalled));
  return fmt::format("the job ended with status {}", status);
}

}  // namespace minke

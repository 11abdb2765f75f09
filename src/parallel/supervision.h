// A job that is started again when it fails, until it is done: what to do after which end.
//
// A failure that may be another one the next time (a killed process, a rank that waited in vain, a
// lost host) is followed by a new start, which goes on from the newest checkpoint. The number of
// such starts is bounded only as long as no new checkpoint comes of them; the pause before them
// grows from 1 s to 60 s. An error that a restart would meet again ends the job (job_status.h).
//
// With a list of hosts, those that do not answer are left out, and the job goes on with fewer ranks
// where that is allowed. Every start asks all hosts anew.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/host_slots.h"

namespace minke {

struct JobShape {
  int ranks = 1;
  std::vector<HostSlots> hosts = {};  // none: where mpirun starts them without a list
  bool operator==(const JobShape&) const = default;
};

// A job as its supervisor sees it.
class SupervisedJob {
 public:
  virtual ~SupervisedJob() = default;
  // Returns when the job has ended, with its exit status. `again`: not for the first time.
  virtual int run(const JobShape& shape, bool again) = 0;
  virtual bool stop_requested() const = 0;  // by the user
  // Returns after `seconds`, or when a stop was requested.
  virtual void pause(std::chrono::seconds seconds) = 0;
  virtual std::vector<HostSlots> answering(const std::vector<HostSlots>& hosts) = 0;
  virtual bool can_run_on(int ranks) const = 0;
  virtual std::int64_t newest_checkpoint() const = 0;  // its step, or -1
  virtual std::string checkpoint_name(std::int64_t step) const = 0;
  virtual void say(std::string_view line) = 0;
};

struct Supervision {
  JobShape shape;       // with all hosts; no more ranks than slots
  int least_ranks = 0;  // that it may go on with; 0: all of them
  int restarts = 3;     // without a new checkpoint in between
};

// The exit status: that of the last run, or kInterruptedStatus after a stop.
int supervise(SupervisedJob& job, const Supervision& supervision);

}  // namespace minke

// Ranks as threads of this process: messages are copies between their buffers. Tests of whatever
// needs several ranks run on it, under the thread sanitizer as well; no launcher is needed.
//
// A rank that has returned from its body sends nothing more: who waits for it gets a RankFailure
// without waiting for the bound.
#pragma once
#include "base/function_ref.h"
#include "parallel/communicator.h"

namespace minke {

struct ThreadRanks {
  int ranks_per_host = 0;  // ranks get the hosts "host0", "host1", ... in turn; 0: all on one
  // A send is complete only when its receive was posted, as MPI does with big messages: what relies
  // on buffers waits in a circle and is found. Else messages are copied and sends complete at once.
  bool rendezvous = false;
  std::chrono::milliseconds timeout{0};  // Communicator::set_timeout of every rank
};

// Runs body on n threads, with the communicator of all of them. The first exception of any rank
// ends the waits of the others and is thrown again here when all have returned. CommError when a
// message was never received, so that no test passes with one left over.
void run_ranks(int n, FunctionRef<void(Communicator&)> body, const ThreadRanks& options = {});

}  // namespace minke

// For tests: the forms of the communicator that need no launcher.
#pragma once
#include "parallel/thread_ranks.h"

namespace minke::test {

struct OneRank {
  static void run(FunctionRef<void(Communicator&)> body) { body(*one_rank()); }
};

template <int N, bool Rendezvous, int RanksPerHost = 0>
struct RanksAsThreads {
  static void run(FunctionRef<void(Communicator&)> body) {
    run_ranks(N, body, {.ranks_per_host = RanksPerHost, .rendezvous = Rendezvous});
  }
};

}  // namespace minke::test

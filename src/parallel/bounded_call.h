// A blocking call that has no bound of its own (MPI_Init, MPI_Finalize, ...), as long as the object
// lives. One that takes longer than `bound` ends the process with kRankFailureStatus after a line
// that says who waited in what, upon which the launcher ends the other ranks. It cannot be left any
// other way: no thread may use a library that another one is stuck in.
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace minke {

class BoundedCall {
 public:
  // `rank` is "rank 1 of 4 on h0"; `call` names the call. A bound of 0: none.
  BoundedCall(std::string rank, std::string call, std::chrono::milliseconds bound);
  BoundedCall(const BoundedCall&) = delete;
  BoundedCall& operator=(const BoundedCall&) = delete;
  ~BoundedCall();

 private:
  std::mutex mutex_;
  std::condition_variable returned_;
  bool has_returned_ = false;
  std::thread watch_;
};

}  // namespace minke

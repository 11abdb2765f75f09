// MPI from MPI_Init to MPI_Finalize, and the thread that keeps its messages moving.
#pragma once
#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/bounded_call.h"
#include "parallel/communicator_form.h"
#include "parallel/mpi.h"

namespace minke {

class MpiSession {
 public:
  explicit MpiSession(const MpiSettings& settings);
  // MPI_Finalize; when an exception is on its way, the job is ended, since the other ranks would
  // wait for this one.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  const MpiSettings& settings() const { return settings_; }
  RankState& state() { return *state_; }
  const std::string& host(int world_rank) const {
    return hosts_[static_cast<std::size_t>(world_rank)];
  }
  [[noreturn]] void abort(std::string_view reason) noexcept;

  // The error to throw when another rank is lost; the job's exit status will say that.
  RankFailure rank_failure(const std::string& reason);
  // rank_failure with MPI's text when `code` is an error.
  void check(int code, std::string_view operation);
  // Around calls of MPI that block: within the bound of waits.
  BoundedCall bounded(std::string call) const;

  // One more message under way, or one less.
  void message_begins();
  void message_ends();

 private:
  void gather_hosts(int n_ranks);
  void keep_moving();

  const MpiSettings settings_;
  const int exceptions_ = std::uncaught_exceptions();
  std::vector<std::string> hosts_;  // of each rank of the world
  std::unique_ptr<RankState> state_;
  std::atomic<bool> lost_rank_{false};
  MPI_Comm probed_ = MPI_COMM_NULL;  // without messages; looking for one moves all others on
  std::mutex mutex_;
  std::condition_variable wake_;
  int under_way_ = 0;
  bool stop_ = false;
  std::thread progress_;
};

}  // namespace minke

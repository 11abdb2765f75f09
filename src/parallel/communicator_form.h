// What the forms of the communicator share: what a rank knows about itself, the words of its
// errors, the checks of arguments, and several requests as one.
#pragma once
#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#include "parallel/communicator.h"

namespace minke {

// One of a rank, used by all communicators that it holds.
class RankState {
 public:
  RankState(int world_rank, int world_size, std::string host)
      : world_rank_(world_rank), world_size_(world_size), host_(std::move(host)) {}

  void set_progress(std::int64_t step, std::string_view operation);
  void set_timeout(std::chrono::milliseconds bound) { timeout_ms_ = bound.count(); }
  // Of a wait; 0: none.
  std::chrono::milliseconds timeout() const { return std::chrono::milliseconds(timeout_ms_); }

  // "rank 3 of 8 on host1, step 12, dispatch"
  std::string where() const;
  // "... : no message of 64 bytes from rank 5 on host2 (tag 7) came within 30 s; ..."
  std::string too_late(std::string_view what) const;

 private:
  const int world_rank_, world_size_;
  const std::string host_;
  std::atomic<std::int64_t> timeout_ms_{0};
  mutable std::mutex mutex_;
  std::int64_t step_ = 0;
  std::string operation_;
};

// One transfer, as errors name it. `peer` is a rank of the world.
struct Transfer {
  enum class Kind : std::uint8_t { Send, Receive, AllToAll, AllGather, Broadcast, Barrier, Split };
  Kind kind;
  int peer;
  int tag;
  std::size_t bytes;
};
// "a message of 64 bytes from rank 5 on host2 (tag 7)", "64 bytes of an all_gather from rank 5 ..."
std::string describe(const Transfer& transfer, const std::string& peer_host);

// CommError for a rank or a tag that does not exist, or sizes that do not agree.
void check_peer(const Communicator& communicator, std::string_view operation, int peer);
void check_tag(std::string_view operation, int tag);
void check_all_to_all(const Communicator& communicator, std::size_t to_all,
                      std::span<const std::size_t> send_sizes, std::size_t from_all,
                      std::span<const std::size_t> receive_sizes);
void check_color(int color);
void check_all_gather(const Communicator& communicator, std::size_t own, std::size_t all);

// Complete when all of them are.
Request combined(std::vector<Request> requests);

}  // namespace minke

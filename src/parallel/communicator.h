// Ranks and the messages between them, in three forms: one rank (parallel/communicator), ranks as
// threads of this process (parallel/thread_ranks), MPI (parallel/mpi).
//
// Messages between two ranks of one communicator with the same tag arrive in the order sent. A
// buffer belongs to the communicator from the call until wait() or test() says that the request is
// complete. Sums are not among the operations: what is summed, and in which order, is decided by
// the caller (parallel/reduction.h), so that results have the same bits on every form.
#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace minke {

// A peer did not answer within the bound, or the job is being ended because of another rank. The
// message names rank, host, step and operation.
class RankFailure : public Error {
 public:
  using Error::Error;
};

// What a rank waits for; destroying one that is not complete waits for it.
class PendingMessage {
 public:
  virtual ~PendingMessage() = default;
  // Whether it is complete; moves messages on. RankFailure as for wait.
  virtual bool test() = 0;
};
using Request = std::unique_ptr<PendingMessage>;

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Of the machine that `rank` runs on; equal names share memory.
  virtual std::string host(int rank) const = 0;

  // Bytes to and from another rank, or this one. Tags are 0 to 32,767. Receiving a message of
  // another size than `bytes` is an error.
  [[nodiscard]] virtual Request send(std::span<const std::byte> bytes, int to, int tag) = 0;
  [[nodiscard]] virtual Request receive(std::span<std::byte> bytes, int from, int tag) = 0;

  // Collective: all ranks call it, in the same order. sizes[r] bytes go to rank r, one after another
  // from `to_all`, and as many as that rank sends come from it.
  [[nodiscard]] virtual Request all_to_all(std::span<const std::byte> to_all,
                                           std::span<const std::size_t> send_sizes,
                                           std::span<std::byte> from_all,
                                           std::span<const std::size_t> receive_sizes) = 0;
  // Collective: own [n] of every rank, in the order of ranks -> all [size() n].
  [[nodiscard]] virtual Request all_gather(std::span<const std::byte> own,
                                           std::span<std::byte> all) = 0;
  // Collective: the bytes of rank `from` go to all.
  [[nodiscard]] virtual Request broadcast(std::span<std::byte> bytes, int from) = 0;
  virtual void barrier() = 0;
  // Collective: a communicator of the ranks with the same color, ordered by key, then by rank.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Ends the whole job at once: other ranks' waits throw RankFailure (threads) or the processes end
  // (MPI).
  virtual void abort(std::string_view reason) noexcept = 0;

  // For messages of errors: what this rank is doing. And how long a wait may take; 0: for ever.
  struct Progress {
    std::int64_t step = 0;
    std::string operation;
  };
  virtual Progress& progress() = 0;
  virtual void set_timeout(std::chrono::milliseconds bound) = 0;

  // Bytes handed to send, all_to_all, all_gather and broadcast for other ranks since the beginning.
  virtual std::uint64_t bytes_sent() const = 0;
};

// Returns when it is complete. RankFailure when that takes longer than the communicator's bound.
void wait(Request& request);
void wait_all(std::span<Request> requests);

// The only rank.
std::unique_ptr<Communicator> one_rank();

}  // namespace minke

// Ranks and the messages between them, in three forms: one rank (one_rank below), ranks as threads
// of this process (parallel/thread_ranks.h), MPI (parallel/mpi.h).
//
// Messages between two ranks of one communicator with the same tag arrive in the order sent. A
// buffer belongs to the communicator from the call until wait() or test() says that the request is
// complete. Sums are not among the operations: what is summed, and in which order, is decided by
// the caller (parallel/reduction.h), so that results have the same bits on every form.
//
// Several threads of a rank may use a communicator at once, as long as all ranks call the
// collective operations in the same order.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace minke {

// A peer did not answer within the bound, or the job is being ended because of another rank. The
// message names rank, host, step and operation.
class RankFailure : public CommError {
 public:
  using CommError::CommError;
};

// What a rank waits for. Destroying one that is not complete waits for it, and ends the job when
// that fails; when an exception destroys it, it is given up instead (no rank may count on it).
class PendingMessage {
 public:
  virtual ~PendingMessage() = default;
  // Whether it is complete; moves messages on. Throws as wait does, but never for lateness.
  virtual bool test() = 0;
  // Returns when it is complete. RankFailure when that takes longer than the communicator's bound;
  // CommError when what came has another size.
  virtual void wait() = 0;
  // As wait, for what may not come for hours: there is no bound, and the rank sleeps. It looks from
  // time to time, 2 ms apart at most, which adds up to a sixteenth to the wait.
  virtual void wait_idle();
};
using Request = std::unique_ptr<PendingMessage>;

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Of `rank`, among all ranks of the job.
  virtual int world_rank(int rank) const = 0;
  // Of the machine that `rank` runs on; equal names share memory.
  virtual std::string host(int rank) const = 0;

  // Bytes to and from another rank, or this one. Tags are 0 to 32,767. Receiving a message of
  // another size than `bytes` is a CommError of the receiver's wait. A send may be complete only
  // when its receive was posted.
  [[nodiscard]] virtual Request send(std::span<const std::byte> bytes, int to, int tag) = 0;
  [[nodiscard]] virtual Request receive(std::span<std::byte> bytes, int from, int tag) = 0;

  // Collective: all ranks call it, in the same order. sizes[r] bytes go to rank r, one after
  // another from `to_all`, and as many as that rank sends come from it. The sizes are read in the
  // call.
  [[nodiscard]] virtual Request all_to_all(std::span<const std::byte> to_all,
                                           std::span<const std::size_t> send_sizes,
                                           std::span<std::byte> from_all,
                                           std::span<const std::size_t> receive_sizes) = 0;
  // Collective: own [n] of every rank, in the order of ranks -> all [size() n].
  [[nodiscard]] virtual Request all_gather(std::span<const std::byte> own,
                                           std::span<std::byte> all) = 0;
  // Collective: the bytes of rank `from` go to all.
  [[nodiscard]] virtual Request broadcast(std::span<std::byte> bytes, int from) = 0;
  // Collective: returns when all ranks have called it. RankFailure as for wait.
  virtual void barrier() = 0;
  // Collective: a communicator of the ranks with the same color (0 or more), ordered by key, then
  // by rank.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Ends the whole job at once: other ranks' waits throw RankFailure (threads) or the processes end
  // (MPI).
  virtual void abort(std::string_view reason) noexcept = 0;

  // Of this rank, on all its communicators: what it is doing, for messages of errors, and how long
  // a wait may take (0: for ever).
  virtual void set_progress(std::int64_t step, std::string_view operation) = 0;
  virtual void set_timeout(std::chrono::milliseconds bound) = 0;

  // Bytes handed to send, all_to_all, all_gather and broadcast of this communicator (not of those
  // split from it) for other ranks since the beginning. A broadcast counts once for every receiver.
  virtual std::uint64_t bytes_sent() const = 0;
};

// A request that is null, or complete already, returns at once.
void wait(Request& request);
// One after another; the first failure is thrown.
void wait_all(std::span<Request> requests);

// The only rank.
std::unique_ptr<Communicator> one_rank();

}  // namespace minke

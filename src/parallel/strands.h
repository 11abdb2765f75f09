// Two strands of one rank that take turns: while one waits for a message, the other computes. So
// the forward of one micro-batch overlaps with the backward of another (the report's Figure 4)
// although both are straight-line code: the order attention / dispatch / experts / combine of the
// pair follows from where they wait.
//
// One baton a rank; only its holder computes. A strand that must wait gives it away and asks for it
// back when the message has come. Turns are served in the order in which they were asked for. While
// nobody else asks for it, the strand that waits does work that can be done at any time, if there
// is some (the gradients of weights).
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

#include "base/function_ref.h"
#include "parallel/communicator.h"
#include "parallel/timeline.h"

namespace minke {

class Baton {
 public:
  // Waits for its turn. `strand` is who it is: 0, or 1 for the second strand of a pair.
  void take(int strand = 0);
  // By the holder.
  void give();
  bool is_held() const;
  // By the holder: whether somebody else waits for a turn.
  bool is_wanted() const;
  // By the holder, who waits: does a piece of the work that fills waits; false when there is none.
  bool fill() const { return filler_ && filler_(); }
  int strand() const { return strand_; }

 private:
  friend class FillingWaits;

  mutable std::mutex mutex_;
  std::condition_variable turned_;
  std::function<bool()> filler_;
  std::uint64_t next_ticket_ = 0, turn_ = 0;
  int strand_ = 0;  // of the holder, who alone reads and writes it
};

// Holds the baton while it lives; nothing of none.
class HoldingBaton {
 public:
  explicit HoldingBaton(Baton* baton) : baton_(baton) {
    if (baton_) baton_->take();
  }
  ~HoldingBaton() {
    if (baton_) baton_->give();
  }
  HoldingBaton(const HoldingBaton&) = delete;
  HoldingBaton& operator=(const HoldingBaton&) = delete;

 private:
  Baton* const baton_;
};

// While it lives, waits of the baton's strands are filled with pieces of work: `fill` does one, or
// says that there is none. Nothing of no baton.
class FillingWaits {
 public:
  FillingWaits(Baton* baton, std::function<bool()> fill) : baton_(baton) {
    if (baton_) baton_->filler_ = std::move(fill);
  }
  ~FillingWaits() {
    if (baton_) baton_->filler_ = nullptr;
  }
  FillingWaits(const FillingWaits&) = delete;
  FillingWaits& operator=(const FillingWaits&) = delete;

 private:
  Baton* const baton_;
};

// Runs both to the end, the second as strand 1 on a thread of its own. The caller holds the baton
// as strand 0 and has it again afterwards. The first exception thrown is thrown again when both
// have ended; so that the other strand ends as well, what it waits for must fail
// (Communicator::abort).
void run_strands(Baton& baton, FunctionRef<void()> first, FunctionRef<void()> second);

// A communicator whose waits give the baton away: request.wait() when the message has not come yet.
// Where nobody holds the baton there are no turns, and they only wait.
// Barriers and splits keep it; a communicator that is split off is one of this kind too.
//
// The order in which both strands of a pair come to their operations differs from rank to rank, so
// they must share neither the order of a communicator's collective operations nor a tag.
class OverlappingCommunicator final : public Communicator {
 public:
  // `inner` outlives it. Without a baton waits are only recorded; without a timeline they are not.
  struct Rank {
    Baton* baton = nullptr;
    Timeline* timeline = nullptr;
  };
  OverlappingCommunicator(Communicator& inner, const Rank& rank) : inner_(inner), rank_(rank) {}
  OverlappingCommunicator(std::unique_ptr<Communicator> inner, const Rank& rank)
      : owned_(std::move(inner)), inner_(*owned_), rank_(rank) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int world_rank(int rank) const override { return inner_.world_rank(rank); }
  std::string host(int rank) const override { return inner_.host(rank); }
  Request send(std::span<const std::byte> bytes, int to, int tag) override;
  Request receive(std::span<std::byte> bytes, int from, int tag) override;
  Request all_to_all(std::span<const std::byte> to_all, std::span<const std::size_t> send_sizes,
                     std::span<std::byte> from_all,
                     std::span<const std::size_t> receive_sizes) override;
  Request all_gather(std::span<const std::byte> own, std::span<std::byte> all) override;
  Request broadcast(std::span<std::byte> bytes, int from) override;
  void barrier() override { inner_.barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<OverlappingCommunicator>(inner_.split(color, key), rank_);
  }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }
  void set_progress(std::int64_t step, std::string_view operation) override {
    inner_.set_progress(step, operation);
  }
  void set_timeout(std::chrono::milliseconds bound) override { inner_.set_timeout(bound); }
  std::uint64_t bytes_sent() const override { return inner_.bytes_sent(); }

 private:
  MessageEnd posted(const MessageEnd& end) const;

  const std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  const Rank rank_;
};

// Waits for `request`, filling the wait or without the baton, and records it. Nothing of it when it
// is complete.
void wait_without_baton(PendingMessage& request, const OverlappingCommunicator::Rank& rank,
                        Activity activity, MicroBatch micro_batch = {},
                        const MessageEnd& message = {});

}  // namespace minke

#include "parallel/strands.h"

#include <exception>
#include <thread>

namespace minke {
namespace {

class OverlappingMessage final : public PendingMessage {
 public:
  OverlappingMessage(Request inner, const OverlappingCommunicator::Rank& rank,
                     const MessageEnd& end)
      : inner_(std::move(inner)), rank_(rank), end_(end) {}
  bool test() override { return inner_->test(); }
  void wait() override { wait_without_baton(*inner_, rank_, Activity::Exchange, {}, end_); }

 private:
  const Request inner_;
  const OverlappingCommunicator::Rank rank_;
  const MessageEnd end_;
};

// The holder's pause; the baton is back when it is destroyed, by an exception as well.
class Pause {
 public:
  explicit Pause(Baton* baton) : baton_(baton), strand_(baton ? baton->strand() : 0) {
    if (baton_) baton_->give();
  }
  ~Pause() {
    if (baton_) baton_->take(strand_);
  }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;

 private:
  Baton* const baton_;
  const int strand_;
};

Request overlapping(Request inner, const OverlappingCommunicator::Rank& rank,
                    const MessageEnd& end = {}) {
  if (!inner) return inner;
  return std::make_unique<OverlappingMessage>(std::move(inner), rank, end);
}

}  // namespace

void Baton::take(int strand) {
  std::unique_lock lock(mutex_);
  const std::uint64_t ticket = next_ticket_++;
  turned_.wait(lock, [&] { return turn_ == ticket; });
  strand_ = strand;
}

void Baton::give() {
  {
    std::lock_guard lock(mutex_);
    ++turn_;
  }
  turned_.notify_all();
}

bool Baton::is_held() const {
  std::lock_guard lock(mutex_);
  return next_ticket_ > turn_;
}

bool Baton::is_wanted() const {
  std::lock_guard lock(mutex_);
  return next_ticket_ > turn_ + 1;
}

void run_strands(Baton& baton, FunctionRef<void()> first, FunctionRef<void()> second) {
  std::mutex mutex;
  std::exception_ptr error;
  const auto run = [&](FunctionRef<void()> body) {
    try {
      body();
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::thread other([&] {
    baton.take(1);
    run(second);
    baton.give();
  });
  run(first);
  {
    const Pause pause(&baton);
    other.join();
  }
  if (error) std::rethrow_exception(error);
}

void wait_without_baton(PendingMessage& request, const OverlappingCommunicator::Rank& rank,
                        Activity activity, MicroBatch micro_batch, const MessageEnd& message) {
  if (request.test()) return;
  Baton* const baton = rank.baton && rank.baton->is_held() ? rank.baton : nullptr;
  TimelineEvent event{activity, baton ? baton->strand() : 0, micro_batch, 0, 0};
  event.message = message;
  if (rank.timeline) event.begin_s = rank.timeline->now_s();
  bool came = false;
  while (!came && baton && !baton->is_wanted() && baton->fill()) came = request.test();
  if (rank.timeline) event.came_s = rank.timeline->now_s();
  if (!came) {
    const Pause pause(baton);
    request.wait();
    if (rank.timeline) event.came_s = rank.timeline->now_s();
  }
  if (!rank.timeline) return;
  event.end_s = rank.timeline->now_s();
  rank.timeline->add(event);
}

MessageEnd OverlappingCommunicator::posted(const MessageEnd& end) const {
  return rank_.timeline ? rank_.timeline->post(end) : end;
}

Request OverlappingCommunicator::send(std::span<const std::byte> bytes, int to, int tag) {
  const MessageEnd end = posted({.peer = inner_.world_rank(to), .tag = tag});
  return overlapping(inner_.send(bytes, to, tag), rank_, end);
}

Request OverlappingCommunicator::receive(std::span<std::byte> bytes, int from, int tag) {
  const MessageEnd end = posted({.receives = true, .peer = inner_.world_rank(from), .tag = tag});
  return overlapping(inner_.receive(bytes, from, tag), rank_, end);
}

Request OverlappingCommunicator::all_to_all(std::span<const std::byte> to_all,
                                            std::span<const std::size_t> send_sizes,
                                            std::span<std::byte> from_all,
                                            std::span<const std::size_t> receive_sizes) {
  return overlapping(inner_.all_to_all(to_all, send_sizes, from_all, receive_sizes), rank_);
}

Request OverlappingCommunicator::all_gather(std::span<const std::byte> own,
                                            std::span<std::byte> all) {
  return overlapping(inner_.all_gather(own, all), rank_);
}

Request OverlappingCommunicator::broadcast(std::span<std::byte> bytes, int from) {
  return overlapping(inner_.broadcast(bytes, from), rank_);
}

}  // namespace minke

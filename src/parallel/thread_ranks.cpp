#include "parallel/thread_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <thread>

#include "parallel/thread_job.h"
#include "parallel/waited_time.h"

namespace minke {
namespace {

// What a rank waits for: a letter in an inbox, its own or the receiver's.
class PendingLetter final : public PendingMessage {
 public:
  PendingLetter(std::shared_ptr<ThreadJob> job, std::shared_ptr<Group> group, Inbox& inbox, Key key,
                std::shared_ptr<Letter> letter, int own_world_rank, Transfer transfer)
      : job_(std::move(job)),
        group_(std::move(group)),
        inbox_(inbox),
        key_(key),
        letter_(std::move(letter)),
        own_world_rank_(own_world_rank),
        transfer_(transfer) {}

  ~PendingLetter() override {
    if (state_ != State::Waiting) return;
    if (std::uncaught_exceptions() > exceptions_) {
      withdraw(inbox_, key_, letter_);
      return;
    }
    try {
      wait();
    } catch (const std::exception& error) {
      job_->abort(error.what());
    }
  }

  bool test() override {
    if (state_ == State::Waiting) {
      std::lock_guard lock(inbox_.mutex);
      if (!over()) return false;
    }
    settle();
    return true;
  }

  void wait() override {
    if (state_ == State::Waiting) {
      std::unique_lock lock(inbox_.mutex);
      const std::chrono::milliseconds bound = rank().timeout();
      if (bound.count() <= 0) {
        inbox_.changed.wait(lock, [&] { return over(); });
      } else if (!WaitedTime::wait(inbox_.changed, lock, bound, [&] { return over(); })) {
        lock.unlock();
        fail(rank().too_late(words()));
      }
    }
    settle();
  }

 private:
  enum class State : std::uint8_t { Waiting, Complete, Failed };

  RankState& rank() const { return job_->state(own_world_rank_); }
  std::string words() const { return describe(transfer_, job_->host(transfer_.peer)); }

  // Complete, or never to be so. Under the lock.
  bool over() const { return letter_->done || job_->aborted() || job_->ended(transfer_.peer); }

  // What follows when it is over.
  void settle() {
    if (state_ == State::Complete) return;
    if (state_ == State::Failed)
      throw RankFailure(fmt::format("{}: {} has failed before", rank().where(), words()));
    bool done;
    {
      std::lock_guard lock(inbox_.mutex);
      done = letter_->done;
    }
    if (!done && job_->aborted())
      fail(fmt::format("{}: {} is given up, for the job is being ended: {}", rank().where(),
                       words(), job_->reason()));
    if (!done)
      fail(fmt::format("{}: {} cannot be complete, for that rank has ended", rank().where(),
                       words()));
    state_ = State::Complete;
    if (letter_->came != letter_->buffer.size())
      throw CommError(fmt::format("{}: {} got {} bytes", rank().where(), words(), letter_->came));
  }

  [[noreturn]] void fail(const std::string& reason) {
    withdraw(inbox_, key_, letter_);
    state_ = State::Failed;
    throw RankFailure(reason);
  }

  const std::shared_ptr<ThreadJob> job_;
  const std::shared_ptr<Group> group_;  // owns the inbox
  Inbox& inbox_;
  const Key key_;
  const std::shared_ptr<Letter> letter_;
  const int own_world_rank_;
  const Transfer transfer_;
  const int exceptions_ = std::uncaught_exceptions();
  State state_ = State::Waiting;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadJob> job, std::shared_ptr<Group> group, int rank)
      : job_(std::move(job)), group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->world_ranks.size()); }
  int world_rank(int rank) const override {
    return group_->world_ranks[static_cast<std::size_t>(rank)];
  }
  std::string host(int rank) const override { return job_->host(world_rank(rank)); }

  Request send(std::span<const std::byte> bytes, int to, int tag) override {
    check_peer(*this, "send", to);
    check_tag("send", tag);
    return put(bytes, to, {rank_, Transfer::Kind::Send, tag});
  }

  Request receive(std::span<std::byte> bytes, int from, int tag) override {
    check_peer(*this, "receive", from);
    check_tag("receive", tag);
    return want(bytes, from, {from, Transfer::Kind::Send, tag});
  }

  Request all_to_all(std::span<const std::byte> to_all, std::span<const std::size_t> send_sizes,
                     std::span<std::byte> from_all,
                     std::span<const std::size_t> receive_sizes) override {
    check_all_to_all(*this, to_all.size(), send_sizes, from_all.size(), receive_sizes);
    return exchange(
        Transfer::Kind::AllToAll,
        [&, offset = std::size_t{0}](std::size_t r) mutable {
          return to_all.subspan(std::exchange(offset, offset + send_sizes[r]), send_sizes[r]);
        },
        [&, offset = std::size_t{0}](std::size_t r) mutable {
          return from_all.subspan(std::exchange(offset, offset + receive_sizes[r]),
                                  receive_sizes[r]);
        });
  }

  Request all_gather(std::span<const std::byte> own, std::span<std::byte> all) override {
    check_all_gather(*this, own.size(), all.size());
    return gather(Transfer::Kind::AllGather, own, all);
  }

  Request broadcast(std::span<std::byte> bytes, int from) override {
    check_peer(*this, "broadcast", from);
    const std::int64_t number = next_collective_++;
    std::vector<Request> requests;
    if (rank_ != from) {
      requests.push_back(want(bytes, from, {from, Transfer::Kind::Broadcast, number}));
    } else {
      for (int r = 0; r < size(); ++r)
        if (r != from) requests.push_back(put(bytes, r, {from, Transfer::Kind::Broadcast, number}));
    }
    return combined(std::move(requests));
  }

  void barrier() override {
    std::vector<std::byte> all(static_cast<std::size_t>(size()));
    const std::byte own{};
    gather(Transfer::Kind::Barrier, {&own, 1}, all)->wait();
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    check_color(color);
    struct Choice {
      int color, key, rank;
    };
    const Choice own{color, key, rank_};
    std::vector<Choice> all(static_cast<std::size_t>(size()));
    const std::int64_t number = next_collective_;
    gather(Transfer::Kind::Split, std::as_bytes(std::span(&own, 1)),
           std::as_writable_bytes(std::span(all)))
        ->wait();
    std::erase_if(all, [&](const Choice& c) { return c.color != color; });
    std::stable_sort(all.begin(), all.end(),
                     [](const Choice& a, const Choice& b) { return a.key < b.key; });
    std::vector<int> members;
    int rank = 0;
    for (const Choice& c : all) {
      if (c.rank == rank_) rank = static_cast<int>(members.size());
      members.push_back(world_rank(c.rank));
    }
    return std::make_unique<ThreadCommunicator>(
        job_, job_->split(*group_, number, color, std::move(members)), rank);
  }

  void abort(std::string_view reason) noexcept override {
    try {
      job_->abort(fmt::format("{}: {}", state().where(), reason));
    } catch (...) {
      job_->abort(reason);  // no memory for the longer text
    }
  }

  void set_progress(std::int64_t step, std::string_view operation) override {
    state().set_progress(step, operation);
  }
  void set_timeout(std::chrono::milliseconds bound) override { state().set_timeout(bound); }
  std::uint64_t bytes_sent() const override { return bytes_sent_; }

 private:
  RankState& state() const { return job_->state(world_rank(rank_)); }

  Request put(std::span<const std::byte> bytes, int to, const Key& key) {
    if (to != rank_ && key.kind != Transfer::Kind::Barrier && key.kind != Transfer::Kind::Split)
      bytes_sent_ += bytes.size();
    auto letter = std::make_shared<Letter>();
    letter->sent = bytes;
    if (!job_->rendezvous()) {
      letter->copy.assign(bytes.begin(), bytes.end());
      letter->sent = letter->copy;
    }
    Inbox& inbox = group_->inboxes[static_cast<std::size_t>(to)];
    post_message(inbox, key, letter);
    if (!job_->rendezvous()) return combined({});  // the copy is the inbox's
    return pending(inbox, key, std::move(letter), to, bytes.size());
  }

  Request want(std::span<std::byte> bytes, int from, const Key& key) {
    auto letter = std::make_shared<Letter>();
    letter->buffer = bytes;
    Inbox& inbox = group_->inboxes[static_cast<std::size_t>(rank_)];
    post_wish(inbox, key, letter);
    Transfer::Kind kind = key.kind;
    if (kind == Transfer::Kind::Send) kind = Transfer::Kind::Receive;
    return pending(inbox, key, std::move(letter), from, bytes.size(), kind);
  }

  Request pending(Inbox& inbox, const Key& key, std::shared_ptr<Letter> letter, int peer,
                  std::size_t bytes, std::optional<Transfer::Kind> kind = {}) {
    const Transfer transfer{kind.value_or(key.kind), world_rank(peer), static_cast<int>(key.number),
                            bytes};
    return std::make_unique<PendingLetter>(job_, group_, inbox, key, std::move(letter),
                                           world_rank(rank_), transfer);
  }

  // to(r) and from(r) are asked once for every rank in turn. All receives are posted before the
  // first send, so that with rendezvous nobody waits for a receive that comes later.
  template <class To, class From>
  Request exchange(Transfer::Kind kind, To to, From from) {
    const std::int64_t number = next_collective_++;
    std::vector<Request> requests;
    for (int r = 0; r < size(); ++r)
      requests.push_back(want(from(static_cast<std::size_t>(r)), r, {r, kind, number}));
    for (int r = 0; r < size(); ++r)
      requests.push_back(put(to(static_cast<std::size_t>(r)), r, {rank_, kind, number}));
    return combined(std::move(requests));
  }

  Request gather(Transfer::Kind kind, std::span<const std::byte> own, std::span<std::byte> all) {
    return exchange(
        kind, [&](std::size_t) { return own; },
        [&](std::size_t r) { return all.subspan(r * own.size(), own.size()); });
  }

  const std::shared_ptr<ThreadJob> job_;
  const std::shared_ptr<Group> group_;
  const int rank_;
  std::atomic<std::int64_t> next_collective_{0};
  std::atomic<std::uint64_t> bytes_sent_{0};
};

}  // namespace

void run_ranks(int n, FunctionRef<void(Communicator&)> body, const ThreadRanks& options) {
  const auto job = std::make_shared<ThreadJob>(n, options);
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int rank) {
    ThreadCommunicator communicator(job, job->world(), rank);
    const auto fail = [&](std::string_view reason) {
      {
        std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      communicator.abort(reason);
    };
    try {
      body(communicator);
      job->end(rank);
    } catch (const std::exception& error) {
      fail(error.what());
    } catch (...) {
      fail("an exception of unknown type");
    }
  };
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r) threads.emplace_back(run, r);
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
  if (!job->aborted()) job->check_nothing_left();
}

std::unique_ptr<Communicator> one_rank() {
  const auto job = std::make_shared<ThreadJob>(1, ThreadRanks{});
  return std::make_unique<ThreadCommunicator>(job, job->world(), 0);
}

}  // namespace minke

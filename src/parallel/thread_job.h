// What ranks as threads share (parallel/thread_ranks.cpp): the messages under way, who has ended,
// and whether the job is being ended.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "parallel/communicator_form.h"
#include "parallel/thread_ranks.h"

namespace minke {

// A message, or the wish for one, that lies in the inbox of its receiver until the other half
// comes.
struct Letter {
  std::span<const std::byte> sent;  // of a message: the sender's buffer, or `copy`
  std::vector<std::byte> copy;
  std::span<std::byte> buffer;  // of a wish
  std::size_t came = 0;         // bytes of the message that answered a wish
  bool done = false;
};

// Messages of one key arrive in the order sent. Collective operations have keys of their own.
struct Key {
  int from;
  Transfer::Kind kind;  // Send for single messages
  std::int64_t number;  // the tag, or which collective operation of the communicator
  auto operator<=>(const Key&) const = default;
};

struct Waiting {
  std::deque<std::shared_ptr<Letter>> messages, wishes;  // one of them is empty
};

// Bytes are copied under the lock: a rank that gives up a letter takes the lock as well, so its
// buffer cannot vanish under the copy.
struct Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<Key, Waiting> waiting;
};

// The ranks of one communicator.
struct Group {
  explicit Group(std::vector<int> ranks)
      : world_ranks(std::move(ranks)), inboxes(world_ranks.size()) {}
  const std::vector<int> world_ranks;
  std::vector<Inbox> inboxes;
};

// All ranks of run_ranks, and all communicators that they have made.
class ThreadJob {
 public:
  ThreadJob(int n, const ThreadRanks& options);

  const std::shared_ptr<Group>& world() const { return world_; }
  bool rendezvous() const { return options_.rendezvous; }
  RankState& state(int world_rank) { return *states_[index(world_rank)]; }
  std::string host(int world_rank) const;

  // The same group for all who name the same split of the same group.
  std::shared_ptr<Group> split(const Group& from, std::int64_t number, int color,
                               std::vector<int> world_ranks);

  // The first reason stays.
  void abort(std::string_view reason);
  bool aborted() const { return aborted_; }
  std::string reason() const;

  // The rank sends nothing more.
  void end(int world_rank);
  bool ended(int world_rank) const { return *ended_[index(world_rank)]; }

  // When all ranks have ended: CommError for a message that nobody received.
  void check_nothing_left() const;

 private:
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  void wake_all();

  const ThreadRanks options_;
  std::vector<std::unique_ptr<RankState>> states_;
  std::vector<std::unique_ptr<std::atomic<bool>>> ended_;
  std::shared_ptr<Group> world_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Group>> groups_;
  std::map<std::tuple<const Group*, std::int64_t, int>, std::shared_ptr<Group>> splits_;
  std::atomic<bool> aborted_{false};
  std::string reason_;
};

// Puts a letter into the inbox, or brings it together with the oldest one that waits for it.
void post_message(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& message);
void post_wish(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& wish);
// Takes it out again, if it is still there.
void withdraw(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& letter);

}  // namespace minke

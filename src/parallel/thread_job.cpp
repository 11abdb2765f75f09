#include "parallel/thread_job.h"

#include <fmt/format.h>

#include <cstring>

namespace minke {
namespace {

void deliver(Letter& message, Letter& wish) {
  wish.came = message.sent.size();
  if (wish.came == wish.buffer.size() && wish.came > 0)
    std::memcpy(wish.buffer.data(), message.sent.data(), wish.came);
  message.done = wish.done = true;
}

}  // namespace

void post_message(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& message) {
  std::lock_guard lock(inbox.mutex);
  Waiting& waiting = inbox.waiting[key];
  if (waiting.wishes.empty()) {
    waiting.messages.push_back(message);
    return;
  }
  deliver(*message, *waiting.wishes.front());
  waiting.wishes.pop_front();
  if (waiting.wishes.empty()) inbox.waiting.erase(key);
  inbox.changed.notify_all();
}

void post_wish(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& wish) {
  std::lock_guard lock(inbox.mutex);
  Waiting& waiting = inbox.waiting[key];
  if (waiting.messages.empty()) {
    waiting.wishes.push_back(wish);
    return;
  }
  deliver(*waiting.messages.front(), *wish);
  waiting.messages.pop_front();
  if (waiting.messages.empty()) inbox.waiting.erase(key);
  inbox.changed.notify_all();
}

void withdraw(Inbox& inbox, const Key& key, const std::shared_ptr<Letter>& letter) {
  std::lock_guard lock(inbox.mutex);
  const auto at = inbox.waiting.find(key);
  if (at == inbox.waiting.end()) return;
  std::erase(at->second.messages, letter);
  std::erase(at->second.wishes, letter);
  if (at->second.messages.empty() && at->second.wishes.empty()) inbox.waiting.erase(at);
}

ThreadJob::ThreadJob(int n, const ThreadRanks& options) : options_(options) {
  std::vector<int> all;
  for (int r = 0; r < n; ++r) {
    all.push_back(r);
    states_.push_back(std::make_unique<RankState>(r, n, host(r)));
    states_.back()->set_timeout(options.timeout);
    ended_.push_back(std::make_unique<std::atomic<bool>>(false));
  }
  world_ = std::make_shared<Group>(std::move(all));
  groups_.push_back(world_);
}

std::string ThreadJob::host(int world_rank) const {
  const int per_host = options_.ranks_per_host;
  return fmt::format("host{}", per_host > 0 ? world_rank / per_host : 0);
}

std::shared_ptr<Group> ThreadJob::split(const Group& from, std::int64_t number, int color,
                                        std::vector<int> world_ranks) {
  std::lock_guard lock(mutex_);
  std::shared_ptr<Group>& group = splits_[{&from, number, color}];
  if (!group) {
    group = std::make_shared<Group>(std::move(world_ranks));
    groups_.push_back(group);
  }
  return group;
}

void ThreadJob::abort(std::string_view reason) {
  {
    std::lock_guard lock(mutex_);
    if (aborted_) return;
    reason_ = reason;
    aborted_ = true;
  }
  wake_all();
}

std::string ThreadJob::reason() const {
  std::lock_guard lock(mutex_);
  return reason_;
}

void ThreadJob::end(int world_rank) {
  *ended_[index(world_rank)] = true;
  wake_all();
}

void ThreadJob::check_nothing_left() const {
  for (const auto& group : groups_)
    for (std::size_t to = 0; to < group->inboxes.size(); ++to)
      for (const auto& [key, waiting] : group->inboxes[to].waiting)
        if (!waiting.messages.empty())
          throw CommError(fmt::format(
              "rank {} never received the message of {} bytes that rank {} sent with tag {}",
              group->world_ranks[to], waiting.messages.front()->sent.size(),
              group->world_ranks[index(key.from)], key.number));
}

void ThreadJob::wake_all() {
  std::vector<std::shared_ptr<Group>> groups;
  {
    std::lock_guard lock(mutex_);
    groups = groups_;
  }
  for (const auto& group : groups)
    for (Inbox& inbox : group->inboxes) {
      // Who has seen the old state under this lock is asleep by now, or will see the new one.
      { std::lock_guard lock(inbox.mutex); }
      inbox.changed.notify_all();
    }
}

}  // namespace minke

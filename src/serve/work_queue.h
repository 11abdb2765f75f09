// Threads of the server for what takes longer than the network thread may wait: parsing and
// tokenizing of requests. Bounded.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace minke {

class WorkQueue {
 public:
  WorkQueue(std::size_t n_threads, std::size_t most_waiting);
  ~WorkQueue();  // does what is waiting, then ends
  // False when the queue is full. `work` must not throw.
  bool add(std::function<void()> work);

 private:
  void run();

  const std::size_t most_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> waiting_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace minke

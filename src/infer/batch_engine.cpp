#include "infer/batch_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "infer/batch_loop.h"

namespace minke {

// What callers and the engine's thread share is behind the mutex; the loop belongs to the thread.
class BatchEngine::Worker {
 public:
  Worker(const Model& model, const BatchSettings& settings)
      : model_(model),
        settings_(resolve_settings(model, settings)),
        loop_(model, settings_),
        n_pages_(loop_.n_pages()),
        statistics_(loop_.statistics()),
        thread_([this] { run(); }) {}

  ~Worker() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  const BatchSettings& settings() const { return settings_; }

  std::vector<RequestId> submit(std::vector<Submission> submissions) {
    std::vector<std::shared_ptr<ActiveRequest>> together;
    for (Submission& s : submissions)
      together.push_back(make_active(model_.config, settings_.context, n_pages_,
                                     std::move(s.request), std::move(s.sink)));
    std::vector<RequestId> ids;
    {
      std::lock_guard lock(mutex_);
      if (draining_ || stop_) throw Draining("the engine is being stopped; no more requests");
      const Index waiting = statistics_.waiting + n_submitted_;
      if (waiting >= settings_.max_waiting)
        throw QueueFull(fmt::format("{} requests wait already, as many as may", waiting),
                        retry_after_s(waiting));
      ++n_submitted_;
      const RequestId place = last_id_ + 1;
      for (auto& active : together) {
        ids.push_back(active->id = ++last_id_);
        active->place = place;
        submitted_.push_back(std::move(active));
      }
    }
    wake_.notify_one();
    return ids;
  }

  void cancel(RequestId id) {
    {
      std::lock_guard lock(mutex_);
      cancelled_.push_back(id);
    }
    wake_.notify_one();
  }

  BatchStatistics statistics() const {
    std::lock_guard lock(mutex_);
    BatchStatistics s = statistics_;
    s.waiting += n_submitted_;
    return s;
  }

  bool drain(double timeout_s) {
    std::unique_lock lock(mutex_);
    draining_ = true;
    const auto ended = [&] { return idle_ && submitted_.empty(); };
    if (ended_.wait_for(lock, std::chrono::duration<double>(timeout_s), ended)) return true;
    cancel_all_ = true;
    wake_.notify_one();
    ended_.wait(lock, ended);
    return false;
  }

 private:
  struct Orders {
    std::vector<std::shared_ptr<ActiveRequest>> submitted;
    std::vector<RequestId> cancelled;
    bool cancel_all = false, stop = false;
  };

  void run() {
    for (;;) {
      const Orders orders = wait_for_orders();
      for (const auto& request : orders.submitted) loop_.add(request);
      for (const RequestId id : orders.cancelled) loop_.cancel(id);
      if (orders.cancel_all || orders.stop) loop_.cancel_all();
      if (orders.stop) return loop_.save_prefixes();
      if (!loop_.idle()) loop_.step();
      publish();
    }
  }

  // Sleeps while there is nothing to do.
  Orders wait_for_orders() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] {
      return !idle_ || stop_ || cancel_all_ || !submitted_.empty() || !cancelled_.empty();
    });
    if (idle_) last_ended_at_ = Clock::now();  // idle time is not a request's
    idle_ = false;
    Orders orders{std::exchange(submitted_, {}), std::exchange(cancelled_, {}),
                  std::exchange(cancel_all_, false), stop_};
    statistics_.waiting += std::exchange(n_submitted_, 0);
    return orders;
  }

  void publish() {
    const BatchStatistics now = loop_.statistics();
    std::lock_guard lock(mutex_);
    if (now.ended > statistics_.ended) note_ended(now.ended - statistics_.ended);
    statistics_ = now;
    idle_ = loop_.idle();
    if (idle_) ended_.notify_all();
  }

  // Requests that end in a second, averaged over the last ones: how long a queue takes to move.
  void note_ended(std::uint64_t n) {
    const auto now = Clock::now();
    const double s = std::chrono::duration<double>(now - last_ended_at_).count();
    last_ended_at_ = now;
    seconds_per_request_.add(s / static_cast<double>(n));
  }
  int retry_after_s(Index waiting) const {
    const double s = seconds_per_request_.value() * static_cast<double>(waiting) / 2;
    return static_cast<int>(std::ceil(std::clamp(s, 1.0, 60.0)));
  }

  const Model& model_;
  const BatchSettings settings_;
  BatchLoop loop_;
  const Index n_pages_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;   // the engine's thread: orders
  std::condition_variable ended_;  // drain: all have ended
  std::vector<std::shared_ptr<ActiveRequest>> submitted_;
  Index n_submitted_ = 0;  // places of the queue that those take
  std::vector<RequestId> cancelled_;
  bool draining_ = false, cancel_all_ = false, stop_ = false, idle_ = true;
  RequestId last_id_ = 0;
  BatchStatistics statistics_;
  MovingAverage seconds_per_request_;
  Clock::time_point last_ended_at_ = Clock::now();

  std::thread thread_;  // last: it begins when all else is there
};

BatchEngine::BatchEngine(const Model& model, const BatchSettings& settings)
    : worker_(std::make_unique<Worker>(model, settings)) {}
BatchEngine::~BatchEngine() = default;

const BatchSettings& BatchEngine::settings() const {
  return worker_->settings();
}
Index BatchEngine::context() const {
  return worker_->settings().context;
}
RequestId BatchEngine::submit(GenerationRequest request, std::shared_ptr<RequestSink> sink) {
  std::vector<Submission> one;
  one.push_back({std::move(request), std::move(sink)});
  return submit_together(std::move(one)).front();
}
std::vector<RequestId> BatchEngine::submit_together(std::vector<Submission> submissions) {
  return worker_->submit(std::move(submissions));
}
void BatchEngine::cancel(RequestId id) {
  worker_->cancel(id);
}
BatchStatistics BatchEngine::statistics() const {
  return worker_->statistics();
}
bool BatchEngine::drain(double timeout_s) {
  return worker_->drain(timeout_s);
}

}  // namespace minke

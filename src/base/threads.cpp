#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace minke {
namespace {

thread_local bool inside_work = false;

// While it lives, parallel_for of this thread runs serially.
struct InsideWork {
  InsideWork() { inside_work = true; }
  ~InsideWork() { inside_work = false; }
};

struct Job {
  FunctionRef<void(Index)> body;
  Index n;
  std::atomic<Index> next;
  std::atomic<int> busy{0};  // pool threads still inside this job
  std::mutex error_mutex;
  std::exception_ptr error;

  void run() {
    const InsideWork inside;
    for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) {
      try {
        body(i);
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(n, std::memory_order_relaxed);
      }
    }
  }
};

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Threads spin for a short while before they sleep: products of one token take microseconds.
class Pool {
 public:
  ~Pool() { resize(1); }

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  void resize(int n) {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
    threads_.clear();
    stop_ = false;
    for (int i = 1; i < n; ++i)
      threads_.emplace_back([this, seen = generation_.load()] { serve(seen); });
  }

  // body(i) for i in [begin, n) on all threads; false, and nothing done, while another caller's
  // items run.
  bool try_run(Index begin, Index n, FunctionRef<void(Index)> body) {
    std::unique_lock caller(callers_, std::try_to_lock);
    if (!caller.owns_lock()) return false;
    Job job{body, n, begin, {}, {}, {}};
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1);
    }
    if (sleeping_.load() > 0) wake_.notify_all();
    job.run();
    {  // nothing is left to begin: who has not come yet need not come, and is not waited for
      std::lock_guard lock(mutex_);
      job_ = nullptr;
    }
    for (int spin = 0; job.busy.load(std::memory_order_acquire) > 0; ++spin)
      spin < kSpins ? cpu_relax() : std::this_thread::yield();
    if (job.error) std::rethrow_exception(job.error);
    return true;
  }

 private:
  static constexpr int kSpins = 20000;

  void serve(std::uint64_t seen) {
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen;
           ++spin)
        cpu_relax();
      Job* job;
      {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        sleeping_.fetch_sub(1);
        seen = generation_.load();
        if (stop_) return;
        job = job_;
        if (!job) continue;
        job->busy.fetch_add(1, std::memory_order_relaxed);
      }
      job->run();
      job->busy.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> threads_;
  std::mutex callers_;  // held by whose items run
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> sleeping_{0};
  Job* job_ = nullptr;
  bool stop_ = false;
};

Pool& pool() {
  static Pool instance;
  static const bool started = (instance.resize(available_cores()), true);
  (void)started;
  return instance;
}

// CPUs granted by the control group (version 2 or 1), or 0 where there is no quota.
int cgroup_quota_cores() {
  long long quota = 0, period = 0;
  if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%lld %lld", &quota, &period) != 2) quota = 0;
    std::fclose(f);
  }
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::max(1LL, (quota + period - 1) / period));
}

}  // namespace

int available_cores() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  if (const int quota = cgroup_quota_cores(); quota > 0) n = std::min(n, quota);
  return std::max(1, n);
}

void set_threads(int n) {
  pool().resize(std::max(1, n));
}
int n_threads() {
  return pool().size();
}

void parallel_for(Index n, FunctionRef<void(Index)> body) {
  if (n <= 0) return;
  if (n == 1 || inside_work || pool().size() == 1) {
    for (Index i = 0; i < n; ++i) body(i);
    return;
  }
  // Callers on several threads (ranks of one process) share the pool. Who finds it taken does items
  // itself until it is free, and so never waits for another caller, whose items may take long or
  // wait for a message of this one.
  for (Index i = 0; i < n && !pool().try_run(i, n, body); ++i) {
    const InsideWork inside;
    body(i);
  }
}

void parallel_ranges(Index n, Index grain, FunctionRef<void(Index, Index)> body) {
  grain = std::max<Index>(1, grain);
  parallel_for((n + grain - 1) / grain,
               [&](Index piece) { body(piece * grain, std::min(n, (piece + 1) * grain)); });
}

}  // namespace minke

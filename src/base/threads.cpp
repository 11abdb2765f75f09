#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace minke {
namespace {

thread_local bool inside_work = false;

// While it lives, parallel_for of this thread runs serially.
struct InsideWork {
  InsideWork() { inside_work = true; }
  ~InsideWork() { inside_work = false; }
};

// The items of one home, or all.
struct alignas(64) Lane {
  std::atomic<Index> next{0};
  Index end = 0;
};

struct Job {
  FunctionRef<void(Index)> body;
  std::span<Lane> lanes;
  std::atomic<int> busy{0};  // pool threads still inside this job
  std::mutex error_mutex;
  std::exception_ptr error;

  // By a thread whose home is `home`.
  void run(Index home) {
    const InsideWork inside;
    const auto n = static_cast<Index>(lanes.size());
    for (Index k = 0; k < n; ++k) run(lanes[static_cast<std::size_t>((home + k) % n)]);
  }

 private:
  void run(Lane& lane) {
    for (Index i; (i = lane.next.fetch_add(1, std::memory_order_relaxed)) < lane.end;) {
      try {
        body(i);
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        for (Lane& other : lanes) other.next.store(other.end, std::memory_order_relaxed);
      }
    }
  }
};

// Threads of each node: at least one, beyond that in proportion to its CPUs.
std::vector<int> dealt_out(int threads, const std::vector<TopologyNode>& nodes) {
  std::vector<int> of_node(nodes.size(), 1);
  const auto cpus_each = [&](std::size_t node) {  // were it given one more
    return static_cast<double>(nodes[node].cpus.size()) / (of_node[node] + 1);
  };
  for (int left = threads - static_cast<int>(nodes.size()); left > 0; --left) {
    std::size_t most = 0;
    for (std::size_t node = 1; node < nodes.size(); ++node)
      if (cpus_each(node) > cpus_each(most)) most = node;
    ++of_node[most];
  }
  return of_node;
}

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Threads spin for a short while before they sleep: products of one token take microseconds.
class Pool {
 public:
  explicit Pool(Topology machine) : machine_(std::move(machine)) { start(available_cores()); }
  ~Pool() { stop(); }

  int size() const { return static_cast<int>(threads_.size()) + 1; }
  Index n_homes() const { return static_cast<Index>(of_home_.size()); }
  int size_of_home(Index home) const { return of_home_[static_cast<std::size_t>(home)]; }
  const Topology& machine() const { return machine_; }

  void resize(int n) {
    stop();
    start(n);
  }
  void move_to(Topology machine) {
    const int n = size();
    stop();
    machine_ = std::move(machine);
    start(n);
  }

  // body(i) for i in [begin, end_of(n_lanes - 1)) on all threads, where items below end_of(k) are
  // of home k or less; false, and nothing done, while another caller's items run.
  bool try_run(Index begin, Index n_lanes, FunctionRef<Index(Index)> end_of,
               FunctionRef<void(Index)> body) {
    std::unique_lock caller(callers_, std::try_to_lock);
    if (!caller.owns_lock()) return false;
    const auto lanes = std::span(lanes_).first(static_cast<std::size_t>(n_lanes));
    for (Index k = 0; k < n_lanes; ++k) {
      Lane& lane = lanes[static_cast<std::size_t>(k)];
      lane.next.store(begin, std::memory_order_relaxed);
      lane.end = end_of(k);
      begin = std::max(begin, lane.end);
    }
    Job job{body, lanes, {}, {}, {}};
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1);
    }
    if (sleeping_.load() > 0) wake_.notify_all();
    job.run(n_lanes == 1 ? 0 : machine_.node_of_this_thread());
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

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
    threads_.clear();
    stop_ = false;
  }

  void start(int n) {
    const bool homes = machine_.n_nodes() > 1 && n >= machine_.n_nodes();
    of_home_ = homes ? dealt_out(n, machine_.nodes()) : std::vector<int>{n};
    lanes_ = std::vector<Lane>(of_home_.size());
    for (Index home = 0; home < n_homes(); ++home)
      for (int i = home == 0 ? 1 : 0; i < size_of_home(home); ++i)  // the caller is one of home 0
        threads_.emplace_back([this, homes, home, seen = generation_.load()] {
          if (homes) machine_.bind_this_thread(home);
          serve(seen, home);
        });
  }

  void serve(std::uint64_t seen, Index home) {
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
      job->run(home);
      job->busy.fetch_sub(1, std::memory_order_release);
    }
  }

  Topology machine_;
  std::vector<int> of_home_;  // threads, the caller counted
  std::vector<Lane> lanes_;   // of the job that runs
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
  static Pool instance(Topology::of_machine());
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

Index n_homes() {
  return pool().n_homes();
}
int n_threads_of_home(Index home) {
  return pool().size_of_home(home);
}
const Topology& topology() {
  return pool().machine();
}
void set_topology(Topology machine) {
  pool().move_to(std::move(machine));
}

namespace {

// As Pool::try_run, for the n items that there are.
void run_all(Index n, Index n_lanes, FunctionRef<Index(Index)> end_of,
             FunctionRef<void(Index)> body) {
  if (n <= 0) return;
  if (n == 1 || inside_work || pool().size() == 1) {
    for (Index i = 0; i < n; ++i) body(i);
    return;
  }
  // Callers on several threads (ranks of one process) share the pool. Who finds it taken does items
  // itself until it is free, and so never waits for another caller, whose items may take long or
  // wait for a message of this one.
  for (Index i = 0; i < n && !pool().try_run(i, n_lanes, end_of, body); ++i) {
    const InsideWork inside;
    body(i);
  }
}

}  // namespace

void parallel_for(Index n, FunctionRef<void(Index)> body) {
  run_all(
      n, 1, [n](Index) { return n; }, body);
}

void parallel_for_at_home(std::span<const Index> ends, FunctionRef<void(Index)> body) {
  const Index n_lanes = n_homes();
  MINKE_ASSERT(std::ssize(ends) == n_lanes);
  run_all(
      ends.back(), n_lanes, [&](Index home) { return ends[static_cast<std::size_t>(home)]; }, body);
}

void parallel_for_at_home(Index n, FunctionRef<void(Index)> body) {
  const EvenParts homes{n, n_homes()};
  run_all(
      n, homes.parts, [&](Index home) { return homes.end(home); }, body);
}

void parallel_ranges(Index n, Index grain, FunctionRef<void(Index, Index)> body) {
  grain = std::max<Index>(1, grain);
  parallel_for((n + grain - 1) / grain,
               [&](Index piece) { body(piece * grain, std::min(n, (piece + 1) * grain)); });
}

}  // namespace minke

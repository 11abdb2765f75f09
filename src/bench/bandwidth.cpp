#include "bench/bandwidth.h"

#include <fmt/format.h>

#include <algorithm>

#include "ops/limits.h"

namespace minke::bench {
namespace {

class Threads {  // a number of threads for a while
 public:
  explicit Threads(int n) : before_(n_threads()) { set_threads(n); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

void add_results(MemoryLimit& memory, const BandwidthBench& bench, std::vector<Result>& results) {
  const auto pass = [&](const char* name, const std::string& shape, FunctionRef<double()> move) {
    Result r;
    r.name = name, r.shape = shape, r.form = "-";
    r.bound = Bound::Bytes;
    r.bytes = move();
    return measured(
        r, bench.rounds, [&] { move(); }, [&] { return memory.read_bytes_per_s(); });
  };
  std::vector<Result> reads;
  for (const int streams : MemoryLimit::kStreams)
    reads.push_back(pass("  read",
                         fmt::format("{} stream{} a thread", streams, streams == 1 ? "" : "s"),
                         [&] { return memory.read(streams); }));
  Result best = *std::max_element(reads.begin(), reads.end(), [](const Result& a, const Result& b) {
    return a.rate() < b.rate();
  });
  best.name = "read bandwidth";
  best.limit = best.rate(), best.share = 1;
  best.note = fmt::format("{} thread{}", best.threads, best.threads == 1 ? "" : "s");
  results.push_back(best);
  results.insert(results.end(), reads.begin(), reads.end());
  results.push_back(pass("  copy", "read and written", [&] { return memory.copy(); }));
  results.push_back(pass("  update", "read and written", [&] { return memory.update(); }));
}

}  // namespace

std::vector<Result> bandwidth_results(const BandwidthBench& bench) {
  MemoryLimit memory(bench.mib << 20);
  std::vector<Result> results;
  add_results(memory, bench, results);
  if (n_threads() > 1) {
    const Threads one(1);
    add_results(memory, bench, results);
  }
  return results;
}

}  // namespace minke::bench

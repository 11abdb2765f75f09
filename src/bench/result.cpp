#include "bench/result.h"

#include <algorithm>
#include <chrono>

namespace minke::bench {

Result measured(Result work, int rounds, FunctionRef<void()> call, FunctionRef<double()> limit) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds, limits, shares;
  const auto of_call = [&] {
    const auto start = Clock::now();
    call();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  call();
  for (int i = 0; i < rounds; ++i) {
    limits.push_back(limit());
    seconds.push_back(of_call());
    shares.push_back((work.bound == Bound::Flop ? work.flop : work.bytes) / seconds.back() /
                     limits.back());
  }
  for (auto* v : {&seconds, &limits, &shares}) std::sort(v->begin(), v->end());
  const std::size_t n = seconds.size();
  work.threads = n_threads();
  work.seconds = seconds[n / 2];
  work.spread = (seconds[3 * n / 4] - seconds[n / 4]) / work.seconds;
  work.limit = limits[n / 2];
  work.share = shares[n / 2];
  return work;
}

Result measured_nearer(Result work, int rounds, FunctionRef<void()> call,
                       FunctionRef<double()> flop_per_s, FunctionRef<double()> bytes_per_s) {
  const bool flop = work.flop / flop_per_s() > work.bytes / bytes_per_s();
  work.bound = flop ? Bound::Flop : Bound::Bytes;
  return measured(std::move(work), rounds, call, flop ? flop_per_s : bytes_per_s);
}

}  // namespace minke::bench

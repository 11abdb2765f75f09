#include "train/ranked_result.h"

#include <gtest/gtest.h>

#include "parallel/mesh.h"
#include "parallel/thread_ranks.h"
#include "train/training_step.h"

namespace minke {
namespace {

constexpr Index kLayers = 2, kModules = 2;

// Losses of such different sizes that another order of the sum gives other bits.
PassResult of_micro_batch(Index m) {
  const double x = m % 2 ? 1e16 + static_cast<double>(m) : 0.1 * static_cast<double>(m + 1);
  PassResult part;
  part.main = 2 * x;
  part.mtp = -x / 7;
  part.mtp_k = {x, 5 * x};
  for (Index layer = 0; layer < kLayers; ++layer) {
    part.moe.push_back(
        {.layer = layer, .load = {m, 1, Index{1} << 40}, .balance = {}, .scores = {}});
    part.moe.back().balance.loss = x / static_cast<double>(3 + layer);
  }
  part.fp8.resize(1);
  part.fp8[0].counts.x.values = 10 + m;
  part.fp8[0].counts.dy.underflow = m;
  part.fp8[0].counts.w.values = 7;
  add_up(part);
  return part;
}

PassResult empty_result() {
  PassResult empty;
  empty.mtp_k.resize(kModules);
  for (Index layer = 0; layer < kLayers; ++layer)
    empty.moe.push_back({.layer = layer, .load = {0, 0, 0}, .balance = {}, .scores = {}});
  empty.fp8.resize(1);
  empty.fp8[0].counts.w.values = 7;
  return empty;
}

void expect_same(const PassResult& all, const PassResult& one) {
  EXPECT_EQ(all.total, one.total);
  EXPECT_EQ(all.main, one.main);
  EXPECT_EQ(all.mtp, one.mtp);
  EXPECT_EQ(all.balance, one.balance);
  EXPECT_EQ(all.mtp_k, one.mtp_k);
  for (std::size_t i = 0; i < one.moe.size(); ++i) EXPECT_EQ(all.moe[i].load, one.moe[i].load);
  EXPECT_EQ(all.fp8[0].counts.x, one.fp8[0].counts.x);
  EXPECT_EQ(all.fp8[0].counts.dy, one.fp8[0].counts.dy);
  EXPECT_EQ(all.fp8[0].counts.w, one.fp8[0].counts.w);
}

TEST(RankedResultThreads, IsThatOfOneRankThatAddsUp) {
  constexpr Index M = 6;
  PassResult one = of_micro_batch(0);
  for (Index m = 1; m < M; ++m) add_result(of_micro_batch(m), one);
  for (const int n : {1, 2, 3, 6})
    run_ranks(n, [&](Communicator& ranks) {
      RankedResult results(empty_result(), M, ranks.rank() == 0);
      const IndexRange own = share_of(M, n, ranks.rank());
      for (Index m = own.begin; m < own.end; ++m) results.add(m, of_micro_batch(m));
      expect_same(std::move(results).joined(ranks), one);
    });
}

// Two stages: layer 0; layer 1, losses and the counts of FP8.
TEST(RankedResultThreads, PartsOfStagesMakeWholeResults) {
  constexpr Index M = 3;
  PassResult one = of_micro_batch(0);
  for (Index m = 1; m < M; ++m) add_result(of_micro_batch(m), one);
  run_ranks(2, [&](Communicator& ranks) {
    RankedResult results(empty_result(), M, ranks.rank() == 1);
    for (Index m = 0; m < M; ++m) {
      PassResult whole = of_micro_batch(m), part;
      if (ranks.rank() == 1) part = std::move(whole);
      if (ranks.rank() == 0)
        part.moe.push_back(std::move(whole.moe[0]));
      else
        part.moe.erase(part.moe.begin());
      results.add(m, part);
    }
    expect_same(std::move(results).joined(ranks), one);
  });
}

}  // namespace
}  // namespace minke

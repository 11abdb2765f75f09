#include "train/ranked_result.h"

#include <gtest/gtest.h>

#include "parallel/mesh.h"
#include "parallel/thread_ranks.h"
#include "train/training_step.h"

namespace minke {
namespace {

// Losses of such different sizes that another order of the sum gives other bits.
PassResult of_micro_batch(Index m) {
  const double x = m % 2 ? 1e16 + static_cast<double>(m) : 0.1 * static_cast<double>(m + 1);
  PassResult part;
  part.total = x;
  part.main = 2 * x;
  part.mtp = -x;
  part.balance = x / 3;
  part.mtp_k = {x, 5 * x};
  part.moe.resize(2);
  for (MoeLayerRecord& layer : part.moe) layer.load = {m, 1, Index{1} << 40};
  part.fp8.resize(1);
  part.fp8[0].counts.x.values = 10 + m;
  part.fp8[0].counts.dy.underflow = m;
  part.fp8[0].counts.w.values = 7;
  return part;
}

TEST(RankedResultThreads, IsThatOfOneRankThatAddsUp) {
  constexpr Index M = 6;
  PassResult one = of_micro_batch(0);
  for (Index m = 1; m < M; ++m) add_result(of_micro_batch(m), one);
  for (const int n : {1, 2, 3, 6})
    run_ranks(n, [&](Communicator& ranks) {
      RankedResult results;
      const IndexRange own = share_of(M, n, ranks.rank());
      for (Index m = own.begin; m < own.end; ++m) results.add(of_micro_batch(m));
      const PassResult all = std::move(results).joined(ranks);
      EXPECT_EQ(all.total, one.total);
      EXPECT_EQ(all.main, one.main);
      EXPECT_EQ(all.mtp, one.mtp);
      EXPECT_EQ(all.balance, one.balance);
      EXPECT_EQ(all.mtp_k, one.mtp_k);
      for (std::size_t i = 0; i < one.moe.size(); ++i)
        EXPECT_EQ(all.moe[i].load, one.moe[i].load) << n << " ranks";
      EXPECT_EQ(all.fp8[0].counts.x, one.fp8[0].counts.x);
      EXPECT_EQ(all.fp8[0].counts.dy, one.fp8[0].counts.dy);
      EXPECT_EQ(all.fp8[0].counts.w, one.fp8[0].counts.w);
    });
}

}  // namespace
}  // namespace minke

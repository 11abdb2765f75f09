// The planner's bytes of expert parallelism against those that an exchange sends.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>

#include "parallel/expert_exchange.h"
#include "parallel/thread_ranks.h"
#include "plan/traffic.h"

namespace minke {
namespace {

constexpr Index kWidth = 128;

PlanModel small_plan() {
  PlanModel m;
  m.hidden_size = kWidth;
  m.n_routed_experts = 16;
  m.num_experts_per_tok = 4;
  m.n_group = 8;
  m.topk_group = 3;
  return m;
}

// Choices that are equally likely: groups first, then experts of them.
Tensor uniform_choices(const PlanModel& m, Index T, int rank) {
  std::mt19937 random(static_cast<unsigned>(rank) + 1);
  const Index e = m.n_routed_experts / m.n_group, K = m.num_experts_per_tok;
  std::vector<Index> groups(static_cast<std::size_t>(m.n_group));
  std::iota(groups.begin(), groups.end(), 0);
  Tensor indices(DType::I32, {T, K});
  for (Index t = 0; t < T; ++t) {
    std::shuffle(groups.begin(), groups.end(), random);
    std::vector<Index> experts;
    for (Index g = 0; g < m.topk_group; ++g)
      for (Index k = 0; k < e; ++k) experts.push_back(groups[static_cast<std::size_t>(g)] * e + k);
    std::shuffle(experts.begin(), experts.end(), random);
    for (Index k = 0; k < K; ++k)
      indices.view<std::int32_t, 2>()(t, k) =
          static_cast<std::int32_t>(experts[static_cast<std::size_t>(k)]);
  }
  return indices;
}

// Four nodes of two ranks; 8 x 1000 tokens, so that the mean of remote nodes is known to 0.5 %.
TEST(ExchangeTraffic, ThreadsSendBetweenNodesWhatThePlannerSays) {
  const PlanModel m = small_plan();
  constexpr Index T = 1000;
  ExchangeTraffic sum;
  std::mutex mutex;
  run_ranks(8,
            [&](Communicator& ranks) {
              ExpertGroup group(ranks, m.n_routed_experts, kFp8Exchange);
              ASSERT_EQ(group.hops().size(), 2u);
              const Tensor indices = uniform_choices(m, T, ranks.rank());
              const Tensor x = Tensor::zeros({T, kWidth});
              const Tensor weights = Tensor::zeros({T, m.num_experts_per_tok});
              Tensor y = Tensor::zeros({T, kWidth});
              const std::unique_ptr<Dispatch> dispatch = exchange_over(group)(0);
              dispatch->plan(indices.view<std::int32_t, 2>(), m.n_routed_experts);
              const Tensor rows = dispatch->send(x.v2());
              dispatch->combine(rows.v2(), weights.v2(), y.v2());
              const std::lock_guard lock(mutex);
              sum.dispatch.between_nodes += group.traffic().dispatch.between_nodes;
              sum.combine.between_nodes += group.traffic().combine.between_nodes;
            },
            {.ranks_per_host = 2});
  const double remote = node_spread(m, 4).remote_expected;
  const ExchangeBytes one = exchange_bytes(m, 1, true);
  const double dispatch = 8 * T * remote * (one.dispatch_row + one.dispatch_scales);
  const double combine = 8 * T * remote * one.combine_row;
  EXPECT_NEAR(static_cast<double>(sum.dispatch.between_nodes), dispatch, 0.02 * dispatch);
  EXPECT_NEAR(static_cast<double>(sum.combine.between_nodes), combine, 0.02 * combine);
}

}  // namespace
}  // namespace minke

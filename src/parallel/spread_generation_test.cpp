// Generation with the routed experts of every layer spread over ranks: each rank has a sequence of
// its own, and all take their steps together.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/cached_forward.h"
#include "model/checkpoint.h"
#include "parallel/expert_exchange.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr int kNewTokens = 8;

Ids prompt_of(int rank, Index vocabulary) {
  Ids ids;
  for (Index i = 0; i < 3 + 20 * rank; ++i)
    ids.push_back(static_cast<std::int32_t>((i * i * 7 + i * 13 + rank * 31 + 5) % vocabulary));
  return ids;
}

Ids greedy(const Model& model, Ids ids) {
  SequenceCache cache(model.config, cache_dtype(model.compute));
  cache.reserve(static_cast<Index>(ids.size()) + kNewTokens);
  Ids generated;
  for (int i = 0; i < kNewTokens; ++i) {
    const Index n = static_cast<Index>(ids.size());
    const Segment segment{&cache, n, AttentionForm::Absorbed};
    const Tensor h = cached_forward(model, ids, {&segment, 1});
    const Tensor logits = output_logits(model, h.v2().rows(n - 1, 1));
    const View1<const float> z = logits.flat();
    Index best = 0;
    for (Index v = 1; v < z.size(); ++v)
      if (z(v) > z(best)) best = v;
    ids = {static_cast<std::int32_t>(best)};
    generated.push_back(ids.front());
  }
  return generated;
}

class SpreadGeneration : public testing::TestWithParam<Compute> {};

TEST_P(SpreadGeneration, ThreadsGiveTheTokensOfOneRank) {
  const std::filesystem::path directory = std::filesystem::path(MINKE_GOLDEN_DIR) / "tiny-grouped";
  const Model whole = load_model(directory, {.compute = GetParam(), .mtp = false});
  const ModelConfig& c = whole.config;
  for (const int n_ranks : {2, 4}) {
    std::vector<Ids> want;
    for (int r = 0; r < n_ranks; ++r) want.push_back(greedy(whole, prompt_of(r, c.vocab_size)));
    run_ranks(n_ranks,
              [&](Communicator& ranks) {
                ExpertGroup group(ranks, c.n_routed_experts);
                Model model = load_model(
                    directory, {.compute = GetParam(), .mtp = false, .held_experts = group.held()});
                model.make_dispatch = exchange_over(group);
                EXPECT_EQ(greedy(model, prompt_of(ranks.rank(), c.vocab_size)),
                          want[static_cast<std::size_t>(ranks.rank())]);
              },
              {.ranks_per_host = 2});
  }
}

INSTANTIATE_TEST_SUITE_P(Computes, SpreadGeneration,
                         testing::Values(Compute::Fp32, Compute::Bf16, Compute::Fp8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace minke

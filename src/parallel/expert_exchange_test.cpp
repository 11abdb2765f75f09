#include "parallel/expert_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/test_directory.h"
#include "model/small_model.h"
#include "parallel/thread_ranks.h"

namespace minke {
namespace {

constexpr Index kExperts = 8, kChosen = 3, kWidth = 160;  // a whole and a ragged tile

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// What one rank has: tokens, their choices and gate weights, the gradient of the layer's output.
struct RankTokens {
  Tensor indices, x, weights, dy;
};

using Choose = std::vector<std::int32_t> (*)(Random& random);
std::vector<std::int32_t> any_experts(Random& random) {
  std::vector<std::int32_t> experts;
  while (static_cast<Index>(experts.size()) < kChosen) {
    const auto e = static_cast<std::int32_t>(random.below(kExperts));
    if (std::find(experts.begin(), experts.end(), e) == experts.end()) experts.push_back(e);
  }
  return experts;
}
std::vector<std::int32_t> the_first_experts(Random&) {
  return {1, 0, 2};
}
std::vector<std::int32_t> the_last_experts(Random&) {
  return {7, 5, 6};
}

RankTokens tokens_of(int rank, Index T, Choose choose) {
  Random random(static_cast<std::uint64_t>(rank) + 100);
  const auto seed = static_cast<std::uint64_t>(10 * rank);
  RankTokens r{Tensor(DType::I32, {T, kChosen}), random_tensor({T, kWidth}, seed + 1),
               random_tensor({T, kChosen}, seed + 2), random_tensor({T, kWidth}, seed + 3)};
  for (Index t = 0; t < T; ++t) {
    const std::vector<std::int32_t> experts = choose(random);
    for (Index k = 0; k < kChosen; ++k) {
      r.indices.view<std::int32_t, 2>()(t, k) = experts[static_cast<std::size_t>(k)];
      r.weights.v2()(t, k) = std::abs(r.weights.v2()(t, k));
    }
  }
  return r;
}

struct Results {
  Tensor y, dweights, dx;
};

// Expert e multiplies by (e + 1) / 3, so that the addends of an output have one sign.
void apply_experts(std::span<const Index> offsets, Index first_expert, View2<float> rows) {
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
    for (Index r = offsets[e]; r < offsets[e + 1]; ++r)
      for (Index d = 0; d < rows.extent(1); ++d)
        rows(r, d) *= static_cast<float>(first_expert + static_cast<Index>(e) + 1) / 3;
}

// A layer forward and backward.
Results layer(Dispatch& dispatch, const RankTokens& tokens, Index first_expert) {
  const Index T = tokens.x.extent(0);
  Results results{random_tensor({T, kWidth}, 5), Tensor::zeros({T, kChosen}),
                  random_tensor({T, kWidth}, 6)};
  dispatch.plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
  dispatch.begin_send(tokens.x.v2());
  Tensor out = dispatch.send(tokens.x.v2());
  const Tensor inputs = out.clone();
  apply_experts(dispatch.offsets(), first_expert, out.v2());
  dispatch.combine(out.v2(), tokens.weights.v2(), results.y.v2());
  Tensor drows = Tensor::uninitialized(out.shape());
  dispatch.combine_backward(tokens.dy.v2(), std::as_const(out).v2(), tokens.weights.v2(),
                            drows.v2(), results.dweights.v2());
  EXPECT_TRUE(same_bits(dispatch.send_again(tokens.x.v2()), inputs));
  apply_experts(dispatch.offsets(), first_expert, drows.v2());
  dispatch.begin_send_backward(std::as_const(drows).v2());
  dispatch.send_backward(drows.v2(), results.dx.v2());
  return results;
}

Results on_one_rank(const RankTokens& tokens) {
  LocalDispatch dispatch;
  return layer(dispatch, tokens, 0);
}

struct Layout {
  int n_ranks, ranks_per_host;
  bool two_hops = true;
};
constexpr Layout kLayouts[] = {{1, 0}, {2, 0}, {4, 0}, {4, 2}, {4, 2, false}, {4, 1}, {8, 2}};
constexpr Index kTokens[] = {5, 0, 17, 3, 1, 0, 0, 9};  // of the ranks

template <class Check>
void on_every_rank(const Layout& layout, ExchangeForm form, Choose choose, Check check) {
  form.two_hops = layout.two_hops;
  run_ranks(layout.n_ranks,
            [&](Communicator& ranks) {
              ExpertGroup group(ranks, kExperts, form);
              const DispatchFactory make = exchange_over(group);
              const RankTokens tokens = tokens_of(ranks.rank(), kTokens[ranks.rank()], choose);
              const std::unique_ptr<Dispatch> dispatch = make(0);
              const Results have = layer(*dispatch, tokens, group.held().first);
              check(group, *dispatch, tokens, have);
            },
            {.ranks_per_host = layout.ranks_per_host, .rendezvous = true});
}

// Uneven ranks, some without tokens; one rank that gets every row, others that get none.
TEST(ExpertExchange, ThreadsHaveTheBitsOfOneRank) {
  for (const Choose choose : {any_experts, the_first_experts, the_last_experts})
    for (const Layout& layout : kLayouts)
      on_every_rank(
          layout, {}, choose,
          [&](ExpertGroup& group, Dispatch&, const RankTokens& tokens, const Results& have) {
            EXPECT_EQ(group.hops().size(), layout.ranks_per_host == 2 && layout.two_hops ? 2u : 1u);
            const Results want = on_one_rank(tokens);
            EXPECT_TRUE(same_bits(have.y, want.y));
            EXPECT_TRUE(same_bits(have.dweights, want.dweights));
            EXPECT_TRUE(same_bits(have.dx, want.dx));
          });
}

TEST(ExpertExchange, ThreadsSortRowsByExpertSourceAndToken) {
  for (const Layout& layout : kLayouts)
    on_every_rank(layout, {}, any_experts,
                  [&](ExpertGroup& group, Dispatch& dispatch, const RankTokens&, const Results&) {
                    const Index S = layout.n_ranks;
                    ASSERT_EQ(dispatch.n_sources(), S);
                    std::vector<Index> segments{0};
                    for (Index e = group.held().first; e < group.held().last; ++e)
                      for (int s = 0; s < S; ++s) {
                        const RankTokens source = tokens_of(s, kTokens[s], any_experts);
                        const View2<const std::int32_t> indices =
                            std::as_const(source.indices).view<std::int32_t, 2>();
                        Index n = 0;
                        for (Index t = 0; t < indices.extent(0); ++t)
                          for (Index k = 0; k < kChosen; ++k) n += indices(t, k) == e;
                        segments.push_back(segments.back() + n);
                      }
                    EXPECT_TRUE(std::equal(segments.begin(), segments.end(),
                                           dispatch.segments().begin(), dispatch.segments().end()));
                    for (std::size_t e = 0; e < dispatch.offsets().size(); ++e)
                      EXPECT_EQ(dispatch.offsets()[e], segments[e * static_cast<std::size_t>(S)]);
                  });
}

double relative_error(const Tensor& have, const Tensor& want, const Tensor& before) {
  double error = 0, size = 0;
  for (Index i = 0; i < want.size(); ++i) {
    error += std::pow(have.flat()(i) - want.flat()(i), 2);
    size += std::pow(want.flat()(i) - before.flat()(i), 2);
  }
  return size == 0 ? 0 : std::sqrt(error / size);
}

// Addends have one sign, so that a result's error is that of its roundings: BF16 of the row, the
// sum on its rank and on its node, 2^-9 each; E4M3 2^-4 instead for the row (values that underflow
// are 2^-10 of the largest and do not count). FP32 adds less than the slack.
TEST(ExpertExchange, ThreadsRoundAsTheFormSays) {
  const double bf16 = std::pow(2, -9), fp8 = std::pow(2, -4);
  const struct {
    ExchangeForm form;
    double bound;
  } cases[] = {{kBf16Exchange, 3.1 * bf16}, {kFp8Exchange, fp8 + 2.1 * bf16}};
  for (const auto& [form, bound] : cases)
    for (const Layout& layout : kLayouts)
      on_every_rank(layout, form, any_experts,
                    [&, bound = bound](ExpertGroup&, Dispatch&, const RankTokens& tokens,
                                       const Results& have) {
                      const Results want = on_one_rank(tokens);
                      const Index T = tokens.x.extent(0);
                      const Tensor y = random_tensor({T, kWidth}, 5);
                      const Tensor dx = random_tensor({T, kWidth}, 6);
                      EXPECT_LT(relative_error(have.y, want.y, y), bound);
                      EXPECT_LT(relative_error(have.dx, want.dx, dx), bound);
                      EXPECT_EQ(same_bits(have.y, want.y), T == 0);
                    });
}

// Rows that are rounded once, at their source, are the same by any way.
TEST(ExpertExchange, ThreadsGetTheSameRowsOverOneHopAndTwo) {
  for (const RowForm rows : {RowForm::Bf16, RowForm::Fp8}) {
    std::vector<Results> of_rank[2] = {std::vector<Results>(4), std::vector<Results>(4)};
    for (const bool two_hops : {false, true})
      on_every_rank({4, 2, two_hops}, {.inputs = rows, .gradients = rows}, any_experts,
                    [&](ExpertGroup& group, Dispatch&, const RankTokens&, const Results& have) {
                      of_rank[two_hops][static_cast<std::size_t>(group.rank())] = {
                          have.y.clone(), have.dweights.clone(), have.dx.clone()};
                    });
    for (std::size_t r = 0; r < 4; ++r) {
      EXPECT_TRUE(same_bits(of_rank[0][r].y, of_rank[1][r].y));
      EXPECT_TRUE(same_bits(of_rank[0][r].dweights, of_rank[1][r].dweights));
      EXPECT_TRUE(same_bits(of_rank[0][r].dx, of_rank[1][r].dx));
    }
  }
}

// A model's own codes are sent as they are, once for all experts of a rank.
TEST(ExpertExchange, ThreadsSendCodesUnchanged) {
  run_ranks(4, [](Communicator& ranks) {
    ExpertGroup group(ranks, kExperts);
    const RankTokens tokens = tokens_of(ranks.rank(), 6, the_first_experts);
    const Fp8Rows codes = fp8_rows(tokens.x.v2(), ScaleForm::PowerOfTwo);
    const std::unique_ptr<Dispatch> dispatch = exchange_over(group)(0);
    dispatch->plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
    const Fp8Rows rows = dispatch->send(codes.view());
    const Fp8Rows again = dispatch->send_again(codes.view());
    EXPECT_TRUE(same_bits(rows.codes, again.codes));
    EXPECT_TRUE(same_bits(rows.scales, again.scales));
    EXPECT_EQ(dispatch->offsets().back(), ranks.rank() == 0 ? 48 : ranks.rank() == 1 ? 24 : 0);
    for (Index e = 0; e + 1 < static_cast<Index>(dispatch->offsets().size()); ++e)
      for (int s = 0; s < 4; ++s) {
        const auto at = static_cast<std::size_t>(4 * e + s);
        const Index first = dispatch->segments()[at];
        const Index n = dispatch->segments()[at + 1] - first;
        if (n == 0) continue;
        const Fp8Rows source =
            fp8_rows(tokens_of(s, 6, the_first_experts).x.v2(), ScaleForm::PowerOfTwo);
        ASSERT_EQ(n, 6);
        EXPECT_EQ(0, std::memcmp(rows.view().codes.rows(first, n).data(), source.codes.raw(),
                                 source.codes.bytes()));
        EXPECT_EQ(0, std::memcmp(rows.view().scales.rows(first, n).data(), source.scales.raw(),
                                 source.scales.bytes()));
      }
    // To ranks 0 and 1, where the chosen experts are: a row each.
    const std::uint64_t row = kWidth + 2 * 4;
    EXPECT_EQ(group.traffic().dispatch.inside_node, (ranks.rank() < 2 ? 1u : 2u) * 6 * row);
    EXPECT_EQ(group.traffic().dispatch.between_nodes, 0u);
  });
}

// Operands in BF16 travel as they are, in half the bytes of FP32; a form rounds them further.
TEST(ExpertExchange, ThreadsSendOperandsInBf16) {
  const struct {
    RowForm inputs;
    Index bytes;  // of a row
  } cases[] = {
      {RowForm::Full, 2 * kWidth}, {RowForm::Bf16, 2 * kWidth}, {RowForm::Fp8, kWidth + 2 * 4}};
  for (const auto& [inputs, bytes] : cases)
    run_ranks(2, [inputs = inputs, bytes = bytes](Communicator& ranks) {
      ExpertGroup group(ranks, kExperts, {.inputs = inputs});
      const RankTokens tokens = tokens_of(ranks.rank(), 6, the_first_experts);
      Tensor narrow = Tensor::uninitialized<BF16>(tokens.x.shape());
      Tensor rounded = Tensor::uninitialized(tokens.x.shape());
      copy(tokens.x.v2(), narrow.v2<BF16>());
      copy(std::as_const(narrow).v2<BF16>(), rounded.v2());
      const DispatchFactory make = exchange_over(group);
      const std::unique_ptr<Dispatch> dispatch = make(0), wide = make(0);
      dispatch->plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
      const Tensor rows = dispatch->send(std::as_const(narrow).v2<BF16>());
      EXPECT_EQ(group.traffic().dispatch.inside_node,
                ranks.rank() == 0 ? 0u : static_cast<std::uint64_t>(6 * bytes));
      const Tensor again = dispatch->send_again(std::as_const(narrow).v2<BF16>());
      EXPECT_TRUE(same_bits(rows, again));
      wide->plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
      const Tensor want = wide->send(std::as_const(rounded).v2());
      for (Index i = 0; i < want.size(); ++i)
        EXPECT_EQ(rows.flat<BF16>()(i).bits, BF16(want.flat()(i)).bits);

      // Gradients of rows, rounded on the way out.
      const Tensor out = want.clone();
      Tensor drows = Tensor::uninitialized(out.shape());
      Tensor narrow_drows = Tensor::uninitialized<BF16>(out.shape());
      Tensor dweights = Tensor::zeros({6, kChosen}), same_dweights = Tensor::zeros({6, kChosen});
      Tensor dx = Tensor::zeros(tokens.x.shape());
      wide->combine_backward(tokens.dy.v2(), out.v2(), tokens.weights.v2(), drows.v2(),
                             dweights.v2());
      dispatch->combine_backward(tokens.dy.v2(), out.v2(), tokens.weights.v2(),
                                 narrow_drows.v2<BF16>(), same_dweights.v2());
      wide->send_backward(std::as_const(drows).v2(), dx.v2());
      dispatch->send_backward(std::as_const(drows).v2(), dx.v2());
      EXPECT_TRUE(same_bits(dweights, same_dweights));
      for (Index i = 0; i < drows.size(); ++i)
        EXPECT_EQ(narrow_drows.flat<BF16>()(i).bits, BF16(drows.flat()(i)).bits);
    });
}

// Two layers under way at once, finished in another order on every rank.
TEST(ExpertExchange, ThreadsMayWaitInAnyOrder) {
  run_ranks(2, [](Communicator& ranks) {
    ExpertGroup group(ranks, kExperts);
    const RankTokens tokens = tokens_of(ranks.rank(), 7, any_experts);
    const std::unique_ptr<Dispatch> one = exchange_over(group)(0);
    const std::unique_ptr<Dispatch> two = exchange_over(group)(0);
    one->plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
    two->plan(tokens.indices.view<std::int32_t, 2>(), kExperts);
    Tensor twice = tokens.x.clone();
    for (Index i = 0; i < twice.size(); ++i) twice.flat()(i) *= 2;
    one->begin_send(tokens.x.v2());
    two->begin_send(std::as_const(twice).v2());
    Tensor a, b;
    if (ranks.rank() == 0) {
      a = one->send(tokens.x.v2());
      b = two->send(std::as_const(twice).v2());
    } else {
      b = two->send(std::as_const(twice).v2());
      a = one->send(tokens.x.v2());
    }
    for (Index i = 0; i < a.size(); ++i) ASSERT_EQ(2 * a.flat()(i), b.flat()(i));
  });
}

TEST(ExpertExchange, UnevenSharesAreRefused) {
  const std::string error =
      error_of([] { run_ranks(3, [](Communicator& ranks) { ExpertGroup group(ranks, 8); }); });
  EXPECT_HOLDS(error, "8 routed experts cannot be shared out evenly over 3 expert ranks");
}

}  // namespace
}  // namespace minke

#include "ops/route.h"

#include <set>

#include "golden_reader.h"
#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

struct Routed {
  Matrix<float> scores, weights;
  Matrix<std::int32_t> indices;
};

Routed route(const RouteShape& s, const Matrix<float>& logits, const std::vector<float>& bias) {
  Routed r{{logits.rows, s.n_experts},
           {logits.rows, s.top_k},
           Matrix<std::int32_t>(logits.rows, s.top_k)};
  route_forward(s, logits.view(), View1<const float>(bias.data(), {s.n_experts}), r.scores.view(),
                r.indices.view(), r.weights.view());
  return r;
}

std::vector<std::int32_t> chosen(const Routed& r, Index t) {
  std::vector<std::int32_t> row;
  for (Index k = 0; k < r.indices.columns; ++k) row.push_back(r.indices(t, k));
  return row;
}

Matrix<float> row_of(std::initializer_list<float> logits) {
  Matrix<float> m(1, static_cast<Index>(logits.size()));
  std::copy(logits.begin(), logits.end(), m.data.begin());
  return m;
}

TEST(RouteGolden, ThreeBiasesWithAndWithoutNormalisation) {
  const test::GoldenFile golden("tiny-grouped/expected.safetensors");
  Matrix<float> logits(48, 16);
  logits.data = golden.numbers<float>("router.logits");
  for (const std::string name : {"zero", "mixed", "negative"})
    for (const bool normalize : {true, false}) {
      SCOPED_TRACE(name);
      const std::string prefix = "router." + name;
      const auto bias = golden.numbers<float>(prefix + ".bias");
      const auto indices = golden.numbers<std::int32_t>(prefix + ".indices");
      const auto weights =
          golden.numbers(prefix + (normalize ? ".weights" : ".weights_not_normalized"));
      test::on_every_isa([&] {
        const Routed r = route({16, 4, 4, 2, normalize, 2.5f}, logits, bias);
        for (Index t = 0; t < 48; ++t)
          for (Index k = 0; k < 4; ++k) {
            const auto i = static_cast<std::size_t>(t * 4 + k);
            EXPECT_EQ(r.indices(t, k), indices[i]) << t << " " << k;
            EXPECT_NEAR(static_cast<double>(r.weights(t, k)), weights[i], 1e-6) << t << " " << k;
          }
      });
    }
}

TEST(RouteGolden, BalanceLossOfTheTrainingCase) {
  const test::GoldenFile golden("train-step/expected.safetensors");
  const auto json = test::golden_json("train-step/expected.json").at("steps")[0].at("loss_f64");
  for (const std::string layer : {"1", "2"}) {
    const std::string prefix = "balance.layers." + layer;
    const auto shape = golden.shape(prefix + ".scores");
    const Index B = shape[0], length = shape[1], E = shape[2];
    Matrix<float> scores(B * length, E);
    scores.data = golden.numbers<float>(prefix + ".scores");
    Matrix<double> f(B, E), p(B, E), golden_f(B, E), golden_p(B, E);
    golden_f.data = golden.numbers(prefix + ".f");
    golden_p.data = golden.numbers(prefix + ".P");
    const double loss =
        balance_loss({E, 2, 4, 2}, scores.view(), length, 1e-4, f.view(), p.view(), {});
    test::expect_near(f, golden_f, 1e-12, 0, "f");
    test::expect_near(p, golden_p, 1e-7, 0, "P");
    EXPECT_NEAR(loss, json.at("balance_layer_" + layer).get<double>(), 1e-10);
  }
}

TEST(Route, BiasChoosesButDoesNotWeigh) {
  const Routed r =
      route({4, 2, 1, 1, true, 1}, row_of({0, 1, 2, 3}), std::vector<float>{10, 10, 0, 0});
  EXPECT_EQ(chosen(r, 0), (std::vector<std::int32_t>{1, 0}));
  const float s0 = 0.5f, s1 = 1 / (1 + std::exp(-1.0f));
  EXPECT_NEAR(r.weights(0, 0), s1 / (s0 + s1), 1e-6);
  EXPECT_NEAR(r.weights(0, 1), s0 / (s0 + s1), 1e-6);
}

TEST(Route, ForbiddenGroupsLoseAlsoWhereAllBiasedScoresAreNegative) {
  // Group 1 is left out; its experts would win against -4 if they were masked with 0.
  const Routed r = route({4, 2, 2, 1, true, 1}, row_of({1, 1, 0, 0}), std::vector<float>(4, -5));
  EXPECT_EQ(chosen(r, 0), (std::vector<std::int32_t>{0, 1}));
}

TEST(Route, GroupsAreRankedByTheSumOfTheirTwoBest) {
  // Group 0 holds the single best expert, group 1 the better pair.
  const Routed r =
      route({6, 2, 2, 1, true, 1}, row_of({4, -9, -9, 2, 2, -9}), std::vector<float>(6, 0));
  EXPECT_EQ(chosen(r, 0), (std::vector<std::int32_t>{3, 4}));
}

TEST(Route, TiesGoToTheLowerIndex) {
  const Routed r =
      route({8, 3, 4, 2, true, 1}, row_of({0, 0, 0, 0, 0, 0, 0, 0}), std::vector<float>(8, 0));
  EXPECT_EQ(chosen(r, 0), (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(Route, ScoresThatAllUnderflowGiveFiniteWeights) {
  test::on_every_isa([] {
    const Routed r =
        route({4, 2, 1, 1, true, 2.5f}, row_of({-200, -300, -400, -500}), std::vector<float>(4, 0));
    for (Index k = 0; k < 2; ++k) EXPECT_TRUE(std::isfinite(r.weights(0, k)));
  });
}

TEST(Route, EveryFormAgreesWithTheDefinition) {
  for (const Index E : {1, 2, 15, 17, 64, 256}) {
    const RouteShape shape{E, std::min<Index>(E, 4), 1, 1, true, 2.5f};
    const auto logits = Matrix<float>::random(67, E, 1, 3);
    const auto bias = Matrix<float>::random(1, E, 2, 0.1);
    const auto wide = logits.as<double>(), wide_bias = bias.as<double>();
    Matrix<double> scores(67, E), weights(67, shape.top_k);
    Matrix<std::int32_t> indices(67, shape.top_k);
    reference::route_forward<double>(shape, wide.view(), wide_bias.flat(), scores.view(),
                                     indices.view(), weights.view());
    test::on_every_isa([&] {
      const Routed r = route(shape, logits, bias.data);
      test::expect_near(r.scores, scores, 0, 1e-6, "scores");
      test::expect_near(r.weights, weights, 0, 2e-6, "weights");
      test::expect_same_bits(r.indices, indices, "indices");
    });
  }
}

TEST(Route, GradientsOfTheWeightsAgreeWithCentralDifferences) {
  for (const bool normalize : {true, false}) {
    const RouteShape shape{6, 3, 3, 2, normalize, 2.5f};
    auto logits = Matrix<double>::random(4, 6, 1);
    const auto bias = Matrix<double>::random(1, 6, 2, 0.1),
               dweights = Matrix<double>::random(4, 3, 3);
    Matrix<double> scores(4, 6), weights(4, 3), dscores(4, 6), dlogits(4, 6);
    Matrix<std::int32_t> indices(4, 3);
    const auto loss = [&] {
      reference::route_forward<double>(shape, logits.view(), bias.flat(), scores.view(),
                                       indices.view(), weights.view());
      return test::weighted_sum(weights, dweights);
    };
    loss();
    reference::route_backward_weights<double>(shape, dweights.view(), scores.view(),
                                              View2<const std::int32_t>(indices.view()),
                                              dscores.view());
    reference::route_backward_scores<double>(dscores.view(), scores.view(), dlogits.view());
    test::expect_gradient(logits.data, dlogits.data, loss);
  }
}

TEST(Route, GradientOfTheBalanceLossAgreesWithCentralDifferences) {
  const RouteShape shape{5, 2};
  auto scores = Matrix<double>::random(6, 5, 1);
  for (double& s : scores.data) s = 1 / (1 + std::exp(-s));
  Matrix<double> dscores(6, 5);
  const auto loss = [&] {
    return reference::balance_loss<double>(shape, scores.view(), 3, 0.7, {}, {}, {});
  };
  reference::balance_loss<double>(shape, scores.view(), 3, 0.7, {}, {}, dscores.view());
  test::expect_gradient(scores.data, dscores.data, loss);
}

TEST(Route, BalanceLossIsTheSameOnAnyThreads) {
  const RouteShape shape{7, 3};
  auto scores = Matrix<float>::random(40, 7, 1);
  for (float& s : scores.data) s = 1 / (1 + std::exp(-s));
  const auto wide = scores.as<double>();
  const double expected = reference::balance_loss<double>(shape, wide.view(), 8, 1e-2, {}, {}, {});
  std::set<double> losses;
  for (const int threads : {1, 2, 3}) {
    set_threads(threads);
    losses.insert(balance_loss(shape, scores.view(), 8, 1e-2, {}, {}, {}));
  }
  set_threads(available_cores());
  EXPECT_EQ(losses.size(), 1u);
  EXPECT_NEAR(*losses.begin(), expected, 1e-12);
}

TEST(Route, LoadsAreCountedInIntegersAndAdded) {
  Matrix<std::int32_t> indices(2, 2);
  indices(0, 0) = 1, indices(0, 1) = 2, indices(1, 0) = 1, indices(1, 1) = 0;
  // Beyond 2^24 a float would no longer count, beyond 256 BF16 would not.
  std::vector<std::int64_t> load{0, 1 << 24, 0, 5};
  count_loads(indices.view(), load);
  EXPECT_EQ(load, (std::vector<std::int64_t>{1, (1 << 24) + 2, 1, 5}));
  load.resize(2);
  EXPECT_THROW(count_loads(indices.view(), load), ShapeError);
}

TEST(Route, MoreChoicesThanTheGroupsHoldAreRefused) {
  EXPECT_THROW(route({8, 5, 4, 2, true, 1}, Matrix<float>(1, 8), std::vector<float>(8, 0)),
               ShapeError);
  EXPECT_THROW(route({8, 2, 3, 2, true, 1}, Matrix<float>(1, 8), std::vector<float>(8, 0)),
               ShapeError);
}

}  // namespace
}  // namespace minke

#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace minke {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> log_of(const std::vector<double>& p) {
  std::vector<float> z;
  for (const double x : p) z.push_back(static_cast<float>(std::log(x)));
  return z;
}

std::vector<std::int32_t> ids_of(const std::vector<Sampler::Candidate>& candidates) {
  std::vector<std::int32_t> ids;
  for (const auto& c : candidates) ids.push_back(c.id);
  return ids;
}

std::vector<Sampler::Candidate> distribution(const SamplerSettings& settings,
                                             const std::vector<float>& logits,
                                             const TokenHistory& history = {}) {
  return Sampler(settings).distribution(logits, history);
}

using Ids = std::vector<std::int32_t>;

TEST(Sampler, TemperatureZeroTakesTheLargestAndTiesTheLowestId) {
  Sampler sampler({.temperature = 0});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 3}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{2, 7, 7, 7}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-kInfinity, -4}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{3e38f}, {}), 0);
}

TEST(Sampler, TinyTemperatureAndLargeLogitsDoNotOverflow) {
  for (const double t : {1e-300, 1e-9, 1e-3}) {
    Sampler sampler({.temperature = t});
    EXPECT_EQ(sampler.sample(std::vector<float>{-3e38f, 3e38f, 2e38f}, {}), 1) << t;
  }
  const auto flat = distribution({.temperature = 100}, {1, 2, 3});
  EXPECT_NEAR(flat[0].probability, 1. / 3, 0.01);
}

TEST(Sampler, NotANumberIsAnError) {
  for (const float bad : {std::nanf(""), kInfinity})
    for (const double t : {0., 1.}) {
      Sampler sampler({.temperature = t});
      try {
        sampler.sample(std::vector<float>{0, bad, 1}, {});
        FAIL();
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("token 1"), std::string::npos) << e.what();
      }
    }
  EXPECT_THROW(Sampler({}).sample(std::vector<float>{-kInfinity, -kInfinity}, {}), Error);
}

TEST(Sampler, SettingsOutOfRangeAreNamed) {
  const auto message = [](const SamplerSettings& settings) -> std::string {
    try {
      settings.check("request");
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({}), "");
  EXPECT_NE(message({.temperature = -1}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.temperature = std::nan("")}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.top_k = -1}).find("top_k"), std::string::npos);
  EXPECT_NE(message({.top_p = 1.01}).find("top_p"), std::string::npos);
  EXPECT_NE(message({.min_p = -0.1}).find("min_p"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = 0}).find("repetition_penalty"), std::string::npos);
  EXPECT_NE(message({.presence_penalty = 2.5}).find("presence_penalty"), std::string::npos);
  EXPECT_NE(message({.frequency_penalty = -3}).find("frequency_penalty"), std::string::npos);
}

TEST(Sampler, TopKKeepsTheLargestAndTiesTheLowestIds) {
  EXPECT_EQ(ids_of(distribution({.top_k = 2}, {1, 4, 2, 3})), (Ids{1, 3}));
  EXPECT_EQ(ids_of(distribution({.top_k = 2}, {5, 1, 5, 5})), (Ids{0, 2}));
  EXPECT_EQ(ids_of(distribution({.top_k = 1}, {2, 2})), (Ids{0}));
  EXPECT_EQ(ids_of(distribution({.top_k = 9}, {1, 2})), (Ids{1, 0}));
  EXPECT_EQ(ids_of(distribution({.top_k = 3}, {1, -kInfinity, 2})), (Ids{2, 0}));
}

TEST(Sampler, TopPKeepsTheTokenThatReachesTheBound) {
  const std::vector<float> z(8, 0.5f);  // eighths, exact
  for (int n = 1; n <= 8; ++n)
    EXPECT_EQ(distribution({.top_p = n / 8.}, z).size(), static_cast<std::size_t>(n));
  EXPECT_EQ(distribution({.top_p = 0.126}, z).size(), 2u);
  EXPECT_EQ(ids_of(distribution({.top_p = 0}, z)), (Ids{0}));
  EXPECT_EQ(ids_of(distribution({.top_p = 0.75}, log_of({0.1, 0.6, 0.3}))), (Ids{1, 2}));
  EXPECT_EQ(ids_of(distribution({.top_p = 0.5}, log_of({0.1, 0.6, 0.3}))), (Ids{1}));
  // Of what top_k left: 0.6 / 0.9 is below 0.7, 0.6 above 0.59.
  EXPECT_EQ(ids_of(distribution({.top_k = 2, .top_p = 0.7}, log_of({0.1, 0.6, 0.3}))), (Ids{1, 2}));
  EXPECT_EQ(ids_of(distribution({.top_k = 2, .top_p = 0.66}, log_of({0.1, 0.6, 0.3}))), (Ids{1}));
}

TEST(Sampler, TopPOfManyTokensEqualsTheSortedDefinition) {
  std::vector<float> z(5000);
  Random random(3);
  for (float& x : z) x = static_cast<float>(random.normal());
  std::vector<std::pair<double, std::int32_t>> sorted;
  double sum = 0;
  for (std::size_t v = 0; v < z.size(); ++v) {
    sorted.push_back({-std::exp(static_cast<double>(z[v])), static_cast<std::int32_t>(v)});
    sum -= sorted.back().first;
  }
  std::sort(sorted.begin(), sorted.end());
  for (const double top_p : {0.001, 0.05, 0.5, 0.9, 0.999}) {
    Ids expected;
    double reached = 0;
    for (const auto& [p, id] : sorted) {
      expected.push_back(id);
      if ((reached -= p) >= top_p * sum) break;
    }
    EXPECT_EQ(ids_of(distribution({.top_p = top_p}, z)), expected) << top_p;
  }
}

TEST(Sampler, MinPIsRelativeToTheMostLikely) {
  const auto z = log_of({0.5, 0.26, 0.24, 1e-9});
  EXPECT_EQ(ids_of(distribution({.min_p = 0.5}, z)), (Ids{0, 1}));
  EXPECT_EQ(ids_of(distribution({.min_p = 0.1}, z)), (Ids{0, 1, 2}));
  EXPECT_EQ(ids_of(distribution({.min_p = 1}, {2, 3, 3})), (Ids{1, 2}));
  // After the temperature.
  EXPECT_EQ(ids_of(distribution({.temperature = 0.5, .min_p = 0.5}, z)), (Ids{0}));
}

TEST(Sampler, PenaltiesFollowTheirFormulae) {
  // Token 0 in the prompt, 1 generated twice, 2 in both (once generated), 3 nowhere.
  const Ids prompt{0, 2, 0, 77, -5}, generated{1, 2, 1, 99};
  const std::vector<float> z{2, -1, 0.5f, 1};
  const SamplerSettings settings{
      .repetition_penalty = 1.25, .presence_penalty = 0.5, .frequency_penalty = 0.25};
  const double expected[] = {2 / 1.25, -1 * 1.25 - 2 * 0.25 - 0.5, 0.5 / 1.25 - 0.25 - 0.5, 1};
  double sum = 0;
  for (const double x : expected) sum += std::exp(x);
  const auto found = distribution(settings, z, {prompt, generated});
  ASSERT_EQ(found.size(), 4u);
  for (const auto& c : found)
    EXPECT_NEAR(c.probability, std::exp(expected[c.id]) / sum, 1e-12) << c.id;
  // They hold at temperature 0 as well.
  Sampler greedy({.temperature = 0, .repetition_penalty = 3});
  EXPECT_EQ(greedy.sample(z, {prompt, {}}), 3);
}

TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<double> p{0.4, 0.05, 0.3, 0.15, 0.1};
  const auto z = log_of(p);
  struct Case {
    SamplerSettings settings;
    std::vector<double> expected;
  };
  const double warm =
      std::sqrt(0.4) + std::sqrt(0.05) + std::sqrt(0.3) + std::sqrt(0.15) + std::sqrt(0.1);
  const Case cases[] = {
      {{.seed = 11}, p},
      {{.temperature = 2, .seed = 12},
       {std::sqrt(0.4) / warm, std::sqrt(0.05) / warm, std::sqrt(0.3) / warm,
        std::sqrt(0.15) / warm, std::sqrt(0.1) / warm}},
      {{.top_k = 3, .seed = 13}, {0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0}},
      {{.top_p = 0.69, .seed = 14}, {0.4 / 0.7, 0, 0.3 / 0.7, 0, 0}},
      {{.min_p = 0.2, .seed = 15}, {0.4 / 0.95, 0, 0.3 / 0.95, 0.15 / 0.95, 0.1 / 0.95}},
  };
  constexpr int draws = 20000;
  for (const Case& c : cases) {
    Sampler sampler(c.settings);
    std::vector<int> counts(p.size());
    Ids prompt;
    for (int i = 0; i < draws; ++i) {
      prompt.push_back(0);  // its length is what moves the draw
      ++counts[static_cast<std::size_t>(sampler.sample(z, {prompt, {}}))];
    }
    double chi_square = 0;
    for (std::size_t v = 0; v < p.size(); ++v) {
      if (c.expected[v] == 0) {
        EXPECT_EQ(counts[v], 0);
        continue;
      }
      const double expected = c.expected[v] * draws;
      chi_square += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    EXPECT_LT(chi_square, 18.5) << c.settings.seed;  // 99.9 % for 4 degrees of freedom
  }
}

TEST(Sampler, ADrawDependsOnSeedAndPositionOnly) {
  std::vector<float> z(50);
  Random random(1);
  for (float& x : z) x = static_cast<float>(random.normal());
  const Ids tokens(40, 7);
  Sampler a({.seed = 5}), b({.seed = 5}), other({.seed = 6});
  int differ = 0;
  for (std::size_t n = 1; n <= tokens.size(); ++n) {
    const std::span<const std::int32_t> all(tokens.data(), n);
    const std::int32_t id = a.sample(z, {all, {}});
    EXPECT_EQ(id, b.sample(z, {all.first(n / 2), all.subspan(n / 2)}));
    b.sample(z, {all.first(n / 3), {}});  // draws in between change nothing
    differ += id != other.sample(z, {all, {}});
  }
  EXPECT_GT(differ, 20);
}

}  // namespace
}  // namespace minke

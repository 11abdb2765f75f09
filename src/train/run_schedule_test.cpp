#include "train/run_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace minke {
namespace {

constexpr Index kBillion = 1'000'000'000;

const char* const kRecipes = MINKE_GOLDEN_DIR "/../../recipes/";

Recipe report() {
  return Recipe::load(std::string(kRecipes) + "deepseek-v3.json", {});
}

// recipes/deepseek-v3.json against the report's section 4.2.
TEST(RunSchedule, TheReportsPreTraining) {
  const RunSchedule s(report());
  const auto at = [&](Index billions) { return s.at_tokens(billions * kBillion); };
  EXPECT_EQ(s.at_step(0).rows, 3072);
  EXPECT_DOUBLE_EQ(s.at_step(0).lr, 2.2e-4 / 2000);
  EXPECT_DOUBLE_EQ(s.at_step(1999).lr, 2.2e-4);
  EXPECT_EQ(at(469).rows, 15360);
  EXPECT_EQ(at(5000).lr, 2.2e-4);
  EXPECT_EQ(at(9999).mtp_lambda, 0.3);
  EXPECT_EQ(at(10000).mtp_lambda, 0.1);
  EXPECT_DOUBLE_EQ(at(12150).lr, (2.2e-4 + 2.2e-5) / 2);
  EXPECT_EQ(s.at_tokens(14300 * kBillion - 1).gamma, 0.001);
  EXPECT_EQ(at(14300).gamma, 0);
  EXPECT_EQ(at(14300).lr, 2.2e-5);
  EXPECT_EQ(at(14632).lr, 2.2e-5);
  EXPECT_EQ(at(14633).lr, 7.3e-6);
  EXPECT_EQ(at(14800).mtp_lambda, 0.1);
  // In whole steps, the last of which begins before the end.
  EXPECT_GE(s.total_tokens(), 14800 * kBillion);
  EXPECT_LT(s.at_step(s.total_steps() - 1).tokens, 14800 * kBillion);
  const ParameterCount n = count_parameters(report().new_model());
  EXPECT_EQ(n.main, 671'026'419'200);
}

Recipe simple(const std::vector<std::pair<std::string, std::string>>& settings = {}) {
  Recipe r;
  r.steps = 40;
  r.data.batch_size = 2;
  r.data.sequence_length = 8;
  r.optimizer.warmup_steps = 10;
  const OptionList list(r);
  for (const auto& [name, value] : settings) set_option(list, name + "=" + value);
  return r;
}

TEST(RunSchedule, TheShortFormEndsWithTheRun) {
  const RunSchedule s(simple({{"optimizer.lr", "1"}, {"optimizer.min_lr", "0.1"}}));
  EXPECT_EQ(s.total_tokens(), 640);
  EXPECT_DOUBLE_EQ(s.at_step(0).lr, 0.1);
  EXPECT_EQ(s.at_step(9).lr, 1.0);
  EXPECT_EQ(s.at_step(10).lr, 1.0);
  EXPECT_NEAR(s.at_step(25).lr, 0.55, 1e-15);
  EXPECT_DOUBLE_EQ(s.at_step(40).lr, 0.1);
  EXPECT_EQ(RunSchedule(simple({{"optimizer.schedule", "constant"}})).at_step(39).lr, 2e-3);
  // A run that ends within its warm-up.
  EXPECT_EQ(RunSchedule(simple({{"steps", "10"}, {"optimizer.lr", "1"}})).at_step(9).lr, 1.0);
  EXPECT_EQ(RunSchedule(simple({{"steps", "5"}, {"optimizer.lr", "1"}})).at_step(4).lr, 1.0);
}

TEST(RunSchedule, TheShortFormWithARampGoesByTokens) {
  const RunSchedule s(simple({{"steps", "0"},
                              {"tokens", "4000"},
                              {"data.batch_size", "16"},
                              {"batch_ramp.from", "2"},
                              {"batch_ramp.tokens", "1000"},
                              {"optimizer.lr", "1"},
                              {"optimizer.min_lr", "0"}}));
  const Index begin = s.at_step(10).tokens, end = s.total_tokens();
  EXPECT_EQ(s.at_step(10).lr, 1.0);
  EXPECT_NEAR(s.at_tokens(begin + (end - begin) / 2).lr, 0.5, 1e-3);
  EXPECT_GE(end, 4000);
  EXPECT_LT(end, 4000 + 16 * 8);
}

std::string error_of(const std::vector<std::pair<std::string, std::string>>& settings) {
  try {
    RunSchedule(simple(settings));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(RunSchedule, NamesWhatCannotBe) {
  const auto segments = [](const char* json) {
    return std::pair<std::string, std::string>{"optimizer.lr_segments", json};
  };
  EXPECT_EQ(error_of({segments(R"([{"until": 640, "lr": 1}])")}), "");
  EXPECT_NE(error_of({segments(R"([{"until": 100, "lr": 1}, {"until": 639, "lr": 1}])")})
                .find("optimizer.lr_segments[1]: until is 639, but the run has 640 tokens"),
            std::string::npos);
  EXPECT_NE(error_of({{"loss.gamma_switches", R"([{"at": 9, "value": 0}, {"at": 9, "value": 1}])"}})
                .find("loss.gamma_switches[1]: at is 9"),
            std::string::npos);
  EXPECT_NE(error_of({{"batch_ramp.from", "3"}}).find("batch_ramp.from is 3"), std::string::npos);
}

TEST(RunSchedule, SegmentsAndTheShortFormExcludeEachOther) {
  try {
    Recipe::load(std::string(kRecipes) + "deepseek-v3.json", {"optimizer.lr=1e-3"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("optimizer.lr and optimizer.lr_segments exclude"),
              std::string::npos)
        << error.what();
  }
}

TEST(RunSchedule, MilestonesAreWithinTheRun) {
  const RunSchedule s(report());
  const std::vector<Index> m = s.milestones();
  EXPECT_TRUE(std::is_sorted(m.begin(), m.end()));
  EXPECT_EQ(m.front(), 0);
  EXPECT_EQ(m.back(), s.total_tokens());
  for (Index billions : {469, 10000, 12150, 14300, 14633})
    EXPECT_EQ(std::count(m.begin(), m.end(), billions * kBillion), 1) << billions;
}

}  // namespace
}  // namespace minke

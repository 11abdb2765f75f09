#include "plan/plan_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "plan/cache_bytes.h"
#include "plan/parameter_table.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

// A directory with one config.json, removed at the end.
struct ConfigDirectory {
  fs::path path;
  explicit ConfigDirectory(const std::string& text) {
    path = fs::temp_directory_path() /
           ("plan-model-" +
            std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::create_directories(path);
    std::ofstream(path / "config.json") << text;
  }
  ~ConfigDirectory() { fs::remove_all(path); }
  PlanModel read() const { return plan_model(path.string()); }
};

std::string error_of(const std::string& text) {
  const ConfigDirectory directory(text);
  try {
    directory.read();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

const char* const kLlama = R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192,
  "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
  "intermediate_size": 28672, "max_position_embeddings": 131072, "tie_word_embeddings": false})";

// Totals that the models' authors publish.
TEST(PlanModel, PresetsHaveThePublishedSizes) {
  const std::pair<const char*, Index> totals[] = {
      {"deepseek-v3", 671026419200},     {"deepseek-v2", 235741434880},
      {"deepseek-v2-lite", 15706484224}, {"llama-3.1-405b", 405853388800},
      {"llama-3.1-70b", 70553706496},    {"qwen2.5-72b", 72706203648}};
  for (const auto& [name, total] : totals)
    EXPECT_EQ(parameter_table(plan_model_preset(name)).total, total) << name;
  for (const std::string& name : plan_model_names())
    EXPECT_FALSE(plan_model_preset(name).source.empty());
}

TEST(PlanModel, NearestNameIsOffered) {
  try {
    plan_model("deepseek-v4-lite");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'deepseek-v2-lite'"), std::string::npos);
  }
}

TEST(PlanModel, ReadsDenseConfigurations) {
  const PlanModel m = ConfigDirectory(kLlama).read();
  EXPECT_EQ(parameter_table(m).total, parameter_table(plan_model_preset("llama-3.1-70b")).total);
  EXPECT_EQ(cache_row(m).elements_per_layer, 2048);
}

TEST(PlanModel, FormatErrorsNameFileAndKey) {
  EXPECT_NE(error_of("{").find("config.json: not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("[]").find("one JSON object"), std::string::npos);
  EXPECT_NE(error_of(R"({"model_type": "gpt"})").find("model_type is 'gpt'"), std::string::npos);
  EXPECT_NE(error_of(R"({"model_type": "llama"})").find("vocab_size is missing"),
            std::string::npos);
  std::string text = kLlama;
  text.replace(text.find("8192"), 4, "-819");
  EXPECT_NE(error_of(text).find("hidden_size is -819"), std::string::npos);
  text = kLlama;
  text.replace(text.find("80,"), 3, "2000000000,");
  text.replace(text.find("28672"), 5, "2000000000");
  EXPECT_NE(error_of(text).find("at most 1e17"), std::string::npos);
}

}  // namespace
}  // namespace minke

#include "infer/generation_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace minke {
namespace {

class GenerationConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() /
           ("minke_generation_config_" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  GenerationConfig load(const std::string& text) {
    std::ofstream(dir_ / "generation_config.json") << text;
    return GenerationConfig::load(dir_);
  }
  std::string error(const std::string& text) {
    try {
      load(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  std::filesystem::path dir_;
};

TEST_F(GenerationConfigTest, AbsentAndEmptyGiveTheDefaults) {
  const SamplerSettings absent = GenerationConfig::load(dir_).sampler_defaults();
  EXPECT_EQ(absent.temperature, 1);
  EXPECT_EQ(absent.top_p, 1);
  EXPECT_EQ(load("{}").sampler_defaults().temperature, 1);
}

TEST_F(GenerationConfigTest, ReadsWhatIsThere) {
  const GenerationConfig c = load(
      R"({"bos_token_id": 0, "eos_token_id": [1, 7], "do_sample": true, "temperature": 0.6,
          "top_p": 0.95, "top_k": 40, "min_p": null, "transformers_version": "4.39.3"})");
  EXPECT_EQ(c.eos_token_ids, (std::vector<std::int32_t>{1, 7}));
  const SamplerSettings s = c.sampler_defaults();
  EXPECT_EQ(s.temperature, 0.6);
  EXPECT_EQ(s.top_p, 0.95);
  EXPECT_EQ(s.top_k, 40);
  EXPECT_EQ(s.min_p, 0);
  EXPECT_EQ(load(R"({"eos_token_id": 1})").eos_token_ids, (std::vector<std::int32_t>{1}));
  EXPECT_EQ(load(R"({"do_sample": false, "temperature": 0.6})").sampler_defaults().temperature, 0);
}

TEST_F(GenerationConfigTest, NamesFileAndKeyOfBadValues) {
  for (const auto& [text, key] : {std::pair{R"({"temperature": "hot"})", "temperature"},
                                  {R"({"temperature": -1})", "temperature"},
                                  {R"({"top_p": 1.5})", "top_p"},
                                  {R"({"top_k": 1.5})", "top_k"},
                                  {R"({"do_sample": 1})", "do_sample"},
                                  {R"({"eos_token_id": -3})", "eos_token_id"},
                                  {R"({"eos_token_id": [1, "x"]})", "eos_token_id"},
                                  {R"({"eos_token_id": 99999999999})", "eos_token_id"},
                                  {R"({"temperature)", "JSON"},
                                  {"[]", "JSON"}}) {
    const std::string message = error(text);
    EXPECT_NE(message.find("generation_config.json"), std::string::npos) << text;
    EXPECT_NE(message.find(key), std::string::npos) << text << ": " << message;
  }
}

}  // namespace
}  // namespace minke

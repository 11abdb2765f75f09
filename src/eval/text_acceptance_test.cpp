#include "eval/text_acceptance.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/byte_tokenizer_test.h"

namespace minke {
namespace {

Model module_model(Index mtp) {
  ModelConfig c = ModelConfig::load(std::filesystem::path(MINKE_GOLDEN_DIR) / "tiny-noqlora");
  c.vocab_size = kByteVocabulary;
  c.initializer_range = 0.3;
  c.num_nextn_predict_layers = mtp;
  const auto dir = std::filesystem::temp_directory_path() /
                   ("minke_text_acceptance_" + std::to_string(getpid()));
  std::filesystem::create_directories(dir);
  ModelParameters<Tensor> masters = initial_parameters(c, 7);
  save_model(dir, c, masters, SaveDType::F32);
  Model model = load_model(dir, {.compute = Compute::Fp32});
  std::filesystem::remove_all(dir);
  return model;
}

TEST(TextAcceptance, CountsBySourceInWindows) {
  const Model model = module_model(1);
  const Tokenizer tokenizer = byte_tokenizer(true);
  TextAcceptance acceptance(model, tokenizer, {.window = 8, .every = 2}, 20);
  std::vector<std::int64_t> seen;
  acceptance.on_progress = [&](std::int64_t bytes) { seen.push_back(bytes); };
  acceptance.add(std::string(20, 'x'), "b");  // 21 tokens: 8, 8, 5
  acceptance.add("春眠", "a");                // 7 tokens
  acceptance.add("", "b");                    // begin of sentence alone: shorter than `every`
  EXPECT_THROW(acceptance.add("\xff", "a"), FormatError);
  const std::vector<NamedAcceptance> found = acceptance.finish();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].source, "a");
  EXPECT_EQ(found[0].acceptance.positions, 3);
  EXPECT_EQ(found[1].documents, 2);
  EXPECT_EQ(found[1].acceptance.positions, 4 + 4 + 2);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 26}));

  // The same windows, alone.
  std::vector<std::int32_t> ids = tokenizer.encode("春眠", SpecialTokens::Ignore);
  ids.insert(ids.begin(), *tokenizer.bos_id());
  EXPECT_EQ(found[0].acceptance.accepted,
            mtp_acceptance(model, std::span(&ids, 1), {.every = 2}).at(0).accepted);
}

TEST(TextAcceptance, RefusesSettingsByName) {
  const ModelConfig c = module_model(1).config;
  const auto refused = [&](TextAcceptanceSettings settings, const ModelConfig& config,
                           std::string_view name) {
    try {
      settings.check(config);
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string_view(e.what()).find(name), std::string_view::npos) << e.what();
      return;
    }
    ADD_FAILURE() << name << " was not refused";
  };
  refused({.window = c.max_position_embeddings, .every = 1}, c, "window");
  refused({.window = 8, .every = 0}, c, "every");
  refused({.window = 8, .every = 9}, c, "every");
  ModelConfig plain = c;
  plain.num_nextn_predict_layers = 0;
  refused({.window = 8, .every = 1}, plain, "num_nextn_predict_layers");
}

}  // namespace
}  // namespace minke

#include "bench/generation.h"

#include "base/error.h"
#include "base/test_directory.h"
#include "model/checkpoint.h"
#include "model/small_model.h"

namespace minke::bench {
namespace {

struct GenerationBench : TestDirectory {
  // A directory with a small model.
  std::string small_model() {
    const ModelConfig c = small_config(1);
    ModelParameters<Tensor> p = small_parameters(c);
    save_model(dir, c, p, SaveDType::Bf16);
    return dir.string();
  }
};

void expect_measured(const Result& r) {
  EXPECT_GT(r.seconds, 0) << r.name;
  EXPECT_GT(r.limit, 0) << r.name;
  EXPECT_GT(r.share, 0) << r.name;
}

TEST_F(GenerationBench, DecodesFromADirectory) {
  DecodeBench bench{.context = 70, .sequences = 3, .steps = 2, .mib = 1, .rounds = 1};
  bench.choice.model = small_model();
  const auto results = decode_results(bench);
  ASSERT_EQ(results.size(), 1u);
  expect_measured(results[0]);
  EXPECT_EQ(results[0].name, "decode " + dir.filename().string());
  EXPECT_EQ(results[0].form, "bf16");
  EXPECT_EQ(results[0].shape, "3 x 1 after 70");
  EXPECT_EQ(results[0].tokens, 3);
  EXPECT_HOLDS(results[0].note, "of 16 experts");
}

TEST_F(GenerationBench, ReadsAPromptFromADirectory) {
  PrefillBench bench{.tokens = 9, .rounds = 1};
  bench.choice.model = small_model();
  const auto results = prefill_results(bench);
  ASSERT_EQ(results.size(), 1u);
  expect_measured(results[0]);
  EXPECT_EQ(results[0].tokens, 9);
}

TEST_F(GenerationBench, DecodesAModelByName) {
  const auto results = decode_results({.steps = 1, .mib = 1, .rounds = 1});
  ASSERT_EQ(results.size(), 1u);
  expect_measured(results[0]);
  EXPECT_EQ(results[0].name, "decode mini");
  EXPECT_EQ(results[0].form, "e4m3");
  // Seven MoE layers with four experts each.
  EXPECT_HOLDS(results[0].note, "28.0 of 224 experts");
}

TEST_F(GenerationBench, RefusesWhatCannotBe) {
  const auto error = [](const std::string& model, const char* compute, const char* weights) {
    ModelChoice choice{.model = model, .compute = compute, .weights = weights};
    return error_of([&] { open_model(choice, AttentionForm::Absorbed); });
  };
  EXPECT_HOLDS(error("maxi", "bf16", "auto"), "neither a benchmark model");
  EXPECT_HOLDS(error("mini", "fp8", "bf16"), "reads FP8 weights");
  EXPECT_HOLDS(error("mini", "fp32", "fp8"), "leave --weights out");
  EXPECT_HOLDS(error("mini", "fp64", "auto"), "training steps");
  EXPECT_HOLDS(error("mini", "bf16", "int3"), "expected auto, fp8, bf16 or int4");
  EXPECT_HOLDS(error(small_model(), "bf16", "fp8"), "is for benchmark models");
  ModelConfig huge = small_config(0);
  huge.vocab_size = Index{1} << 40;
  EXPECT_HOLDS(error_of([&] { open_random({}, huge, AttentionForm::Absorbed); }),
               "of memory are available");
}

}  // namespace
}  // namespace minke::bench

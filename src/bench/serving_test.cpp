#include "bench/serving.h"

#include "base/test_directory.h"
#include "model/checkpoint.h"
#include "model/small_model.h"

namespace minke::bench {
namespace {

struct ServingBenchTest : TestDirectory {};

TEST_F(ServingBenchTest, MeasuresStreamsPromptsAndDrafts) {
  const ModelConfig c = small_config(1);
  ModelParameters<Tensor> p = small_parameters(c);
  save_model(dir, c, p, SaveDType::Bf16);
  ServingBench bench{.streams = {1, 3}, .tokens = 4, .prompt = 130, .rounds = 1};
  bench.choice.model = dir.string();
  const std::vector<Result> results = serving_results(bench);
  ASSERT_EQ(results.size(), 5u);
  for (const Result& r : results) {
    EXPECT_GT(r.seconds, 0) << r.name;
    EXPECT_GT(r.share, 0) << r.name;
  }
  EXPECT_EQ(results[1].shape, "3 x 4");
  EXPECT_EQ(results[1].tokens, 12);
  EXPECT_HOLDS(results[2].name, "first token");
  EXPECT_HOLDS(results[3].note, "times sooner");
  EXPECT_HOLDS(results[4].note, "drafts accepted");
}

}  // namespace
}  // namespace minke::bench

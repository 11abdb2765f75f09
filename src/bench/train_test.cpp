#include "bench/train.h"

#include <gtest/gtest.h>

namespace minke::bench {
namespace {

TEST(TrainBench, MeasuresTheStepAndItsParts) {
  const auto results =
      train_results({.model = "mini", .batch = 1, .sequence = 8, .compute = "bf16", .rounds = 1});
  ASSERT_EQ(results.size(), 3u);
  for (const Result& r : results) {
    EXPECT_GT(r.seconds, 0) << r.name;
    EXPECT_GT(r.share, 0) << r.name;
  }
}

}  // namespace
}  // namespace minke::bench

#include "bench/models.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/parameters.h"

namespace minke::bench {
namespace {

TEST(BenchModels, HaveTheSizesThatTheirNamesStandFor) {
  const struct {
    const char* name;
    double total, active;
  } sizes[] = {
      {"mini", 107.9e6, 26.7e6}, {"moonlight-9l", 4.9e9, 813e6}, {"v3-slice", 12.5e9, 1398e6}};
  for (const auto& s : sizes) {
    const ModelConfig c = benchmark_model(s.name);
    c.check(s.name);
    const ParameterCount n = count_parameters(c);
    EXPECT_NEAR(static_cast<double>(n.total), s.total, 0.01 * s.total) << s.name;
    EXPECT_NEAR(static_cast<double>(n.active), s.active, 0.005 * s.active) << s.name;
  }
  // Matrices alone: 0.045 GFLOP a token; one token sees one key.
  EXPECT_NEAR(prefill_flop(benchmark_model("mini"), 1), 0.045e9, 0.001e9);
  const double pairs = 512.0 * 513 / 2 - 512, of_pair = 2 * 8 * 8 * (96 + 64);
  EXPECT_NEAR(
      prefill_flop(benchmark_model("mini"), 512) - 512 * prefill_flop(benchmark_model("mini"), 1),
      pairs * of_pair, 1e3);
  EXPECT_FALSE(find_benchmark_model("maxi"));
  EXPECT_THROW(benchmark_model("maxi"), UsageError);
}

}  // namespace
}  // namespace minke::bench

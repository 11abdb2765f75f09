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
    const ModelConfig c = model_config(s.name);
    c.check(s.name);
    const ParameterCount n = count_parameters(c);
    EXPECT_NEAR(static_cast<double>(n.total), s.total, 0.01 * s.total) << s.name;
    EXPECT_NEAR(static_cast<double>(n.active), s.active, 0.005 * s.active) << s.name;
  }
  EXPECT_NEAR(training_flop_per_token(model_config("mini"), 512), 0.191e9, 0.001e9);
  EXPECT_THROW(model_config("maxi"), UsageError);
}

}  // namespace
}  // namespace minke::bench

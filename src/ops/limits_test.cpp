#include "ops/limits.h"

#include <gtest/gtest.h>

#include "ops/isa.h"

namespace minke {
namespace {

TEST(Limits, ArePositiveOnEveryInstructionSet) {
  for (Isa isa : available_isas()) {
    choose_isa(isa);
    EXPECT_GT(fp32_flop_per_s(), 1e6);
    EXPECT_GT(bf16_flop_per_s(), 1e6);
    EXPECT_FALSE(bf16_limit_name().empty());
  }
  choose_isa(available_isas().back());
  EXPECT_GT(MemoryLimit(Index{8} << 20).read_bytes_per_s(), 1e6);
}

}  // namespace
}  // namespace minke

#include "ops/limits.h"

#include <gtest/gtest.h>

#include "base/threads.h"
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

TEST(Limits, PassesSayHowManyBytesTheyMove) {
  MemoryLimit memory(Index{1} << 20);
  const double all = 1 << 20, slack = 64.0 * 8 * n_threads();  // whole lines for each stream
  for (const int streams : MemoryLimit::kStreams) EXPECT_NEAR(memory.read(streams), all, slack);
  EXPECT_NEAR(memory.copy(), all, slack);
  EXPECT_NEAR(memory.update(), 2 * all, 2 * slack);
}

}  // namespace
}  // namespace minke

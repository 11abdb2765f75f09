#include "train/agreed_fault.h"

#include <gtest/gtest.h>

#include "parallel/thread_ranks.h"

namespace minke {
namespace {

Fault fault(const std::string& tensor, int cause, double place) {
  return {.kind = Fault::Kind::NotFinite,
          .tensor = tensor,
          .layer = std::nullopt,
          .what = "the gradient " + tensor,
          .in_weights = cause == 0,
          .cause = cause,
          .place = place};
}

TEST(AgreedFaultThreads, IsTheFirstCauseAtItsFirstPlace) {
  run_ranks(4, [](Communicator& ranks) {
    const std::optional<Fault> gradients[] = {fault("a", 2, -1), fault("b", 2, -7), std::nullopt,
                                              fault("c", 2, -3)};
    const auto own = static_cast<std::size_t>(ranks.rank());
    std::optional<Fault> agreed = agreed_fault(ranks, gradients[own]);
    ASSERT_TRUE(agreed);
    EXPECT_EQ(agreed->tensor, "b");
    EXPECT_EQ(agreed->what, "the gradient b");
    EXPECT_EQ(agreed->layer, std::nullopt);
    EXPECT_FALSE(agreed->in_weights);
    std::optional<Fault> mixed = gradients[own];
    if (own == 2) {
      mixed = fault("w", 0, 99);
      mixed->layer = 5;
    }
    agreed = agreed_fault(ranks, mixed);
    ASSERT_TRUE(agreed);
    EXPECT_EQ(agreed->tensor, "w");
    EXPECT_EQ(agreed->layer, 5);
    EXPECT_TRUE(agreed->in_weights);
    EXPECT_FALSE(agreed_fault(ranks, std::nullopt));
  });
}

}  // namespace
}  // namespace minke

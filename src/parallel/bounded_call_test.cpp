#include "parallel/bounded_call.h"

#include <gtest/gtest.h>

#include "parallel/job_status.h"

namespace minke {
namespace {

using std::chrono::milliseconds;

TEST(BoundedCall, EndsTheProcessOfOneThatIsStuck) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const BoundedCall call("rank 1 of 4 on h0", "MPI_Init", milliseconds(20));
        std::this_thread::sleep_for(std::chrono::seconds(60));
      },
      testing::ExitedWithCode(kRankFailureStatus),
      "minke: rank 1 of 4 on h0: MPI_Init did not return within 20 ms");
}

TEST(BoundedCall, LeavesOneThatReturnsAlone) {
  for (int i = 0; i < 20; ++i) const BoundedCall call("rank 0", "a call", std::chrono::hours(1));
  const BoundedCall unbounded("rank 0", "a call", milliseconds(0));
  std::this_thread::sleep_for(milliseconds(5));
}

}  // namespace
}  // namespace minke

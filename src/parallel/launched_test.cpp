#include "parallel/launched.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace minke {
namespace {

TEST(Launched, ReadsWhatLaunchersSay) {
  const char* names[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                            {"PMI_RANK", "PMI_SIZE"},
                            {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  const auto forget = [&] {
    for (const auto& [rank, size] : names) unsetenv(rank), unsetenv(size);
  };
  for (const auto& [rank, size] : names) {
    forget();
    EXPECT_EQ(launched_process().size, 1);
    setenv(rank, "2", 1);
    EXPECT_EQ(launched_process().size, 1) << "a batch script of Slurm has a rank, and is no rank";
    setenv(size, "4", 1);
    EXPECT_EQ(launched_process().rank, 2);
    EXPECT_EQ(launched_process().size, 4);
  }
  forget();
}

}  // namespace
}  // namespace minke

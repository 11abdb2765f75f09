#include "parallel/mpirun.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace minke {
namespace {

using Words = std::vector<std::string>;

bool has(const Words& words, const Words& part) {
  return std::search(words.begin(), words.end(), part.begin(), part.end()) != words.end();
}

TEST(Mpirun, OnThisMachineRanksMayOutnumberCores) {
  const Words few = mpirun_command({.ranks = 2}, 4, {}, {"minke", "train", "r.json"});
  EXPECT_EQ(few, (Words{"mpirun", "-np", "2", "--bind-to", "none", "--oversubscribe", "minke",
                        "train", "r.json"}));
  const Words many = mpirun_command({.ranks = 8}, 4, {"-x", "A"}, {"minke"});
  EXPECT_TRUE(
      has(many, {"--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-x", "A", "minke"}));
}

TEST(Mpirun, HostsComeFromTheListOrTheBatchSystem) {
  const Words listed = mpirun_command({3, {{"a", 2}, {"b", 1}}}, 4, {}, {"minke"});
  EXPECT_TRUE(has(listed, {"--host", "a:2,b:1", "--mca", "oob_tcp_keepalive_time", "10"}));
  EXPECT_FALSE(has(listed, {"--oversubscribe"}));
  const Words batch = mpirun_command({.ranks = 8}, 0, {}, {"minke"});
  EXPECT_EQ(batch, (Words{"mpirun", "-np", "8", "--bind-to", "none", "minke"}));
}

TEST(Mpirun, FlagsAreSplitAtBlanks) {
  EXPECT_EQ(split_words("  --mca btl  self,tcp\t-x A=1 "),
            (Words{"--mca", "btl", "self,tcp", "-x", "A=1"}));
  EXPECT_TRUE(split_words("").empty());
}

TEST(Mpirun, SeesTheRanksOfThisMachine) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const int child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_EQ(ranks_started_by(getpid(), self), std::vector<int>{child});
  EXPECT_TRUE(ranks_started_by(getpid(), "/usr/bin/other").empty());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(ranks_started_by(getpid(), self).empty());
}

}  // namespace
}  // namespace minke

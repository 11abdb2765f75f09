#include "base/machine_memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

namespace minke {
namespace {

namespace fs = std::filesystem;

struct MachineMemoryTest : testing::Test {
  MachineMemoryTest() {
    std::string pattern = (fs::temp_directory_path() / "minke-memory-XXXXXX").string();
    root = mkdtemp(pattern.data());
  }
  ~MachineMemoryTest() override { fs::remove_all(root); }
  void put(const fs::path& path, std::string_view text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  fs::path root;
};

TEST_F(MachineMemoryTest, ReadsWhatTheSystemSays) {
  put("proc/meminfo",
      "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    600 kB\nSwapTotal: 50 kB\n"
      "SwapFree:  40 kB\n");
  put("sys/devices/system/node/node10/meminfo", "Node 10 MemTotal:  7 kB\nNode 10 MemFree: 3 kB\n");
  put("sys/devices/system/node/node2/meminfo", "Node 2 MemTotal:  9 kB\n");
  put("sys/devices/system/node/online", "2,10\n");
  put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  put("sys/fs/cgroup/memory.max", "max\n");
  const MachineMemory m = read_machine_memory(root);
  EXPECT_EQ(m.total_bytes, 1000u * 1024);
  EXPECT_EQ(m.available_bytes, 600u * 1024);
  EXPECT_EQ(m.swap_bytes, 50u * 1024);
  EXPECT_EQ(m.swap_free_bytes, 40u * 1024);
  ASSERT_EQ(m.nodes.size(), 2u);
  EXPECT_EQ(m.nodes[0].number, 2);
  EXPECT_EQ(m.nodes[0].total_bytes, 9u * 1024);
  EXPECT_EQ(m.nodes[1].number, 10);
  EXPECT_EQ(m.nodes[1].total_bytes, 7u * 1024);
  EXPECT_EQ(m.nodes[1].free_bytes, 3u * 1024);
  EXPECT_EQ(m.huge_pages, "madvise");
}

TEST_F(MachineMemoryTest, AControlGroupLimitsWhatIsAvailable) {
  put("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 600 kB\n");
  put("sys/fs/cgroup/memory.max", "204800\n");
  put("sys/fs/cgroup/memory.current", "102400\n");
  const MachineMemory m = read_machine_memory(root);
  EXPECT_EQ(m.total_bytes, 204800u);
  EXPECT_EQ(m.available_bytes, 102400u);
}

TEST_F(MachineMemoryTest, ASilentSystemGivesNothing) {
  const MachineMemory m = read_machine_memory(root);
  EXPECT_EQ(m.total_bytes, 0u);
  EXPECT_TRUE(m.nodes.empty());
  EXPECT_EQ(m.huge_pages, "");
}

TEST(BytesText, PicksTheUnit) {
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(1.5 * (1 << 30)), "1.50 GiB");
}

}  // namespace
}  // namespace minke

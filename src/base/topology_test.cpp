#include "base/topology.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/threads.h"

namespace minke {
namespace {

using Cpus = std::vector<int>;

TEST(Topology, OneNodeHasAllCpus) {
  const Topology t = Topology::synthetic("numa:1 core:2 pu:2");
  ASSERT_EQ(t.n_nodes(), 1);
  EXPECT_EQ(t.nodes()[0].number, 0);
  EXPECT_EQ(t.nodes()[0].cpus, (Cpus{0, 1, 2, 3}));
}

TEST(Topology, ANodeOfEachPackage) {
  const Topology t = Topology::synthetic("package:2 [numa] core:2 pu:2");
  ASSERT_EQ(t.n_nodes(), 2);
  EXPECT_EQ(t.nodes()[0].cpus, (Cpus{0, 1, 2, 3}));
  EXPECT_EQ(t.nodes()[1].number, 1);
  EXPECT_EQ(t.nodes()[1].cpus, (Cpus{4, 5, 6, 7}));
}

TEST(Topology, NodesWithoutAUsableCpuAreLeftOut) {
  const Topology t = Topology::synthetic("package:2 group:2 [numa] pu:2", {0, 2, 3, 6, 7});
  ASSERT_EQ(t.n_nodes(), 3);
  EXPECT_EQ(t.nodes()[0].cpus, Cpus{0});
  EXPECT_EQ(t.nodes()[1].cpus, (Cpus{2, 3}));
  EXPECT_EQ(t.nodes()[2].number, 3);
  EXPECT_EQ(t.nodes()[2].cpus, (Cpus{6, 7}));
}

// Each CPU is near its package's memory and near that of its half of the package.
TEST(Topology, ACpuOfTwoNodesIsCountedOnce) {
  const Topology t = Topology::synthetic("package:2 [numa] group:2 [numa] pu:2");
  Cpus all;
  for (const TopologyNode& node : t.nodes())
    all.insert(all.end(), node.cpus.begin(), node.cpus.end());
  EXPECT_EQ(all.size(), 8u);
  EXPECT_EQ(std::set<int>(all.begin(), all.end()).size(), 8u);
}

TEST(Topology, CpusNearNoMemoryMakeOneNode) {
  const Topology t = Topology::synthetic("package:2 [numa] pu:2", {1, 2, 9});
  ASSERT_EQ(t.n_nodes(), 1);
  EXPECT_EQ(t.nodes()[0].cpus, (Cpus{1, 2, 9}));
}

TEST(Topology, AnotherMachineBindsNothing) {
  const Topology t = Topology::synthetic("package:2 [numa] pu:2");
  const int before = available_cores();
  EXPECT_FALSE(t.bind_this_thread(1));
  EXPECT_EQ(available_cores(), before);
  alignas(4096) static char page[4096];
  EXPECT_FALSE(t.place_memory(page, sizeof page, 1));
  EXPECT_EQ(t.node_of_this_thread(), 0);
}

TEST(Topology, PlacedMemoryKeepsWhatItHolds) {
  constexpr std::size_t kBytes = 3 * 4096;
  alignas(4096) static unsigned char pages[kBytes];
  std::fill(pages, pages + kBytes, 7);
  Topology::of_machine().place_memory(pages, kBytes, 0);
  EXPECT_EQ(std::count(pages, pages + kBytes, 7), std::ptrdiff_t{kBytes});
}

TEST(Topology, UnknownMachinesAreRefused) {
  EXPECT_THROW(Topology::synthetic("socket:much"), UsageError);
}

TEST(Topology, ThisMachineHasTheCpusThatTheProcessMayUse) {
  const Topology t = Topology::of_machine();
  std::size_t cpus = 0;
  for (const TopologyNode& node : t.nodes()) {
    EXPECT_FALSE(node.cpus.empty());
    cpus += node.cpus.size();
  }
  EXPECT_GE(cpus, static_cast<std::size_t>(available_cores()));
  EXPECT_LT(t.node_of_this_thread(), t.n_nodes());
}

TEST(Topology, CpusAsText) {
  EXPECT_EQ(cpu_list_text({}), "");
  EXPECT_EQ(cpu_list_text({3}), "3");
  EXPECT_EQ(cpu_list_text({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
}

}  // namespace
}  // namespace minke

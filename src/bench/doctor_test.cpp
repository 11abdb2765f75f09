#include "bench/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/test_topology.h"

namespace minke::bench {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// A BF16 model of 40 GiB on a machine where nothing is wrong.
Diagnosis sound() {
  Diagnosis d;
  d.model.storage = LinearStorage::Plain;
  d.stored = {LinearStorage::Plain, {40.0 * kGiB, 2e9}, 1e4};
  d.converted = {LinearStorage::E4m3, {20.0 * kGiB, 1e9}, 1e4};
  d.cpu.avx2 = d.cpu.avx512 = d.cpu.amx = true;
  d.isa = available_isas().back();
  d.memory = {.total_bytes = 64 * kGiB, .available_bytes = 60 * kGiB, .huge_pages = "madvise"};
  d.memory.nodes = {{.number = 0, .total_bytes = 64 * kGiB}};
  d.bandwidth.bound = Bound::Bytes;
  d.bandwidth.bytes = 1e11, d.bandwidth.seconds = 1;
  return d;
}

bool says(const Diagnosis& d, std::string_view text) {
  const auto lines = advice(d);
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

TEST(Doctor, BoundIsBandwidthOverBytes) {
  const Diagnosis d = sound();
  EXPECT_DOUBLE_EQ(d.decode_bound(d.stored, 0), 50);
  EXPECT_DOUBLE_EQ(d.decode_bound(d.stored, 100000), 100 / 3.0);
  EXPECT_TRUE(d.fits(d.stored));
}

TEST(Doctor, SaysWhatWouldHelp) {
  Diagnosis d = sound();
  EXPECT_EQ(advice(d).size(), 1u);
  EXPECT_TRUE(says(d, "up to 2.0 times the tokens/s"));
  EXPECT_FALSE(says(d, "Then it fits"));

  d.memory.available_bytes = 30 * kGiB;
  EXPECT_TRUE(says(d, "10.00 GiB are missing"));
  EXPECT_TRUE(says(d, "end other programs"));
  EXPECT_TRUE(says(d, "Then it fits"));
  d.memory.total_bytes = 32 * kGiB;
  EXPECT_FALSE(says(d, "end other programs"));

  d = sound();
  d.cpu.amx = false;
  EXPECT_TRUE(says(d, "a processor with AMX"));
  d.threads = 1, d.cores = 8;
  EXPECT_TRUE(says(d, "All 8 cores"));
  d.memory.huge_pages = "never";
  EXPECT_TRUE(says(d, "Huge pages"));
  d.memory.swap_bytes = 4 * kGiB, d.memory.swap_free_bytes = 3 * kGiB;
  EXPECT_TRUE(says(d, "1.00 GiB are in swap"));

  d.memory.nodes = {{.number = 0, .total_bytes = 32 * kGiB},
                    {.number = 1, .total_bytes = 32 * kGiB},
                    {.number = 2, .total_bytes = 32 * kGiB}};
  EXPECT_TRUE(says(d, "1 of the 3 nodes is in use"));
  d.homes = {{0, "0-3", 4}, {1, "4-7", 4}};
  EXPECT_TRUE(says(d, "2 of the 3 nodes are in use"));
  d.homes.push_back({2, "8-11", 4});
  EXPECT_FALSE(says(d, "NUMA"));
}

TEST(Doctor, NamesTheNodesOfThreads) {
  EXPECT_EQ(diagnose({.model = "mini", .rounds = 1, .mib = 1}).homes.size(),
            n_homes() > 1 ? static_cast<std::size_t>(n_homes()) : 0);
  const TwoNodes two_nodes;
  const Diagnosis d = diagnose({.model = "mini", .rounds = 1, .mib = 1});
  ASSERT_EQ(d.homes.size(), 2u);
  EXPECT_EQ(d.homes[1].number, 1);
  EXPECT_EQ(d.homes[1].cpus, "1");
  EXPECT_EQ(d.homes[1].threads, 1);
}

TEST(Doctor, LooksAtAModelByName) {
  const Diagnosis d = diagnose({.model = "v3-slice", .rounds = 1, .mib = 1});
  EXPECT_EQ(d.model.name, "v3-slice");
  EXPECT_EQ(d.stored.storage, LinearStorage::E4m3);
  EXPECT_NEAR(d.stored.weights.held, 12.8e9, 0.3e9);
  EXPECT_NEAR(d.converted.weights.per_token / d.stored.weights.per_token, 1.6, 0.3);
  EXPECT_EQ(d.stored.cache_of_token, 2 * 576 * 2);
  EXPECT_GT(d.decode_bound(d.stored, 0), 0);
  EXPECT_GT(d.prefill_bound(), 0);
}

}  // namespace
}  // namespace minke::bench

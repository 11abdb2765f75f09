#include "tensor/weight_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "base/test_topology.h"
#include "base/threads.h"

namespace minke {
namespace {

struct Block {
  std::size_t bytes;
  unsigned char* at;
};

TEST(WeightMemory, BlocksOfAllSizesAreAlignedAndTheirOwn) {
  std::vector<Block> blocks;
  for (std::size_t bytes : {0, 1, 64, 65, 4095, 1 << 20, 3 << 20, (9 << 20) + 12345, 33 << 20,
                            30 << 20, 31 << 20, 70 << 20, 2})
    blocks.push_back({bytes, static_cast<unsigned char*>(allocate_weights(bytes))});
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks[i].at) % 64, 0u);
    std::memset(blocks[i].at, static_cast<int>(i + 1), blocks[i].bytes);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i)
    for (std::size_t at = 0; at < blocks[i].bytes; at += 4093)
      ASSERT_EQ(blocks[i].at[at], i + 1) << "block of " << blocks[i].bytes << " at " << at;
  for (const Block& b : blocks) free_weights(b.at, b.bytes);
}

// A matrix that is packed, used once and dropped beside weights that stay.
TEST(WeightMemory, WhatWasTakenLastIsGivenAgain) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "with a sanitizer every block is the allocator's own";
#endif
  void* const stays = allocate_weights(1000);
  void* const first = allocate_weights(5000);
  free_weights(first, 5000);
  EXPECT_EQ(allocate_weights(300), first);
  free_weights(first, 300);
  free_weights(stays, 1000);
}

// Pages are where memory is shared out: none may hold weights of two homes.
TEST(WeightMemory, HomesShareNoPage) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "with a sanitizer every block is the allocator's own";
#endif
  const TwoNodes two_nodes;
  constexpr std::size_t kPage = 4096;
  std::map<std::uintptr_t, Index> home_of_page;
  std::vector<Block> blocks;
  for (const std::size_t bytes : {100, 5000, 40 << 20, 64, 1 << 20, 33 << 20, 70})
    for (const Index home : {kNoHome, Index{0}, Index{1}}) {
      auto* const at = static_cast<unsigned char*>(allocate_weights(bytes, home));
      blocks.push_back({bytes, at});
      at[0] = at[bytes - 1] = 1;
      if (home == kNoHome && bytes > (32 << 20)) continue;  // a block like any other
      const auto first = reinterpret_cast<std::uintptr_t>(at);
      for (std::uintptr_t page = first / kPage; page <= (first + bytes - 1) / kPage; ++page) {
        const auto [known, is_new] = home_of_page.emplace(page, home);
        ASSERT_EQ(known->second, home);
      }
    }
  for (const Block& b : blocks) free_weights(b.at, b.bytes);
  void* const again = allocate_weights(64, 1);
  EXPECT_EQ(again, blocks[2].at) << "a home's emptied neighbourhood is filled again";
  free_weights(again, 64);
}

TEST(WeightMemory, ThreadsTakeAndReturnAtTheSameTime) {
  parallel_for(64, [](Index i) {
    for (std::size_t round = 0; round < 20; ++round) {
      const std::size_t bytes = (round << 18) + static_cast<std::size_t>(i) * 1000 + 1;
      auto* block = static_cast<unsigned char*>(allocate_weights(bytes));
      block[0] = block[bytes - 1] = static_cast<unsigned char>(i);
      EXPECT_EQ(block[0], block[bytes - 1]);
      free_weights(block, bytes);
    }
  });
}

}  // namespace
}  // namespace minke

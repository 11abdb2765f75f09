#include "tensor/block_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>

#include "base/threads.h"
#include "tensor/tensor.h"

namespace minke {
namespace {

TEST(BlockCache, BlocksAreAlignedAndUsableInEverySize) {
  for (std::size_t bytes : {0, 1, 63, 64, 65, 4095, 1 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1,
                            (9 << 20) + 12345}) {
    void* block = allocate_block(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 64, 0u);
    std::memset(block, 0xAB, bytes);
    free_block(block, bytes);
  }
  release_kept_blocks();
  EXPECT_EQ(kept_block_bytes(), 0u);
}

TEST(BlockCache, AThreadGetsItsSmallBlocksAgain) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "with a sanitizer no block is kept";
#endif
  for (const std::size_t bytes : {1, 64, 65, 512, 513, 4096, 5000, (256 << 10) - 64}) {
    void* const first = allocate_block(bytes);
    void* const second = allocate_block(bytes);
    free_block(second, bytes);
    free_block(first, bytes);
    EXPECT_EQ(allocate_block(bytes), first) << bytes;
    EXPECT_EQ(allocate_block(bytes), second) << bytes;
    free_block(first, bytes);
    free_block(second, bytes);
  }
  release_kept_blocks();
}

TEST(BlockCache, ThreadsMayFreeWhatOthersTookAndEnd) {
  BlockVector<BlockVector<int>> lists(100);
  std::thread([&] {
    for (std::size_t i = 0; i < lists.size(); ++i) lists[i].assign(i * 7, static_cast<int>(i));
  }).join();
  std::thread([&] {
    for (std::size_t i = 0; i < lists.size(); ++i)
      EXPECT_EQ(std::count(lists[i].begin(), lists[i].end(), static_cast<int>(i)),
                static_cast<std::ptrdiff_t>(i * 7));
    lists.clear();
  }).join();
}

TEST(BlockCache, NewTensorsAreZeroWhateverTheBlockHeld) {
  for (int round = 0; round < 3; ++round) {
    Tensor t = Tensor::zeros({3 << 20});
    for (Index i = 0; i < t.size(); i += 4097) EXPECT_EQ(t.flat()(i), 0.0f);
    std::memset(t.raw(), 0xFF, t.bytes());
  }
  release_kept_blocks();
}

TEST(BlockCache, ThreadsTakeAndReturnAtTheSameTime) {
  parallel_for(64, [](Index i) {
    for (int round = 0; round < 20; ++round) {
      Tensor t = Tensor::uninitialized({(1 << 20) + i * 1000});
      t.flat()(0) = static_cast<float>(i);
      t.flat()(t.size() - 1) = static_cast<float>(i);
      EXPECT_EQ(t.flat()(0), t.flat()(t.size() - 1));
    }
  });
  release_kept_blocks();
}

TEST(BlockCache, ImpossibleSizesThrow) {
  EXPECT_THROW(allocate_block(std::size_t{1} << 60), std::bad_alloc);
}

}  // namespace
}  // namespace minke

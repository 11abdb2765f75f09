#include "tensor/block_cache.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>

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

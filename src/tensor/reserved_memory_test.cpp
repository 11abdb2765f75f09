#include "tensor/reserved_memory.h"

#include <gtest/gtest.h>

#include <utility>

#include "base/error.h"

namespace minke {
namespace {

TEST(ReservedMemory, IsZeroUntilWrittenAndMoves) {
  ReservedMemory memory(std::size_t{1} << 40, "a test");  // more than any machine of a test has
  EXPECT_EQ(memory.data()[(std::size_t{1} << 40) - 1], std::byte{0});
  memory.data()[5'000'000'000] = std::byte{7};
  std::byte* const at = memory.data();
  ReservedMemory moved = std::move(memory);
  EXPECT_EQ(moved.data(), at);
  EXPECT_EQ(memory.data(), nullptr);
  moved = ReservedMemory(4096, "a test");
  EXPECT_NE(moved.data(), nullptr);
  EXPECT_EQ(moved.data()[0], std::byte{0});
}

TEST(ReservedMemory, RefusalsNameThePurpose) {
  try {
    ReservedMemory(std::size_t{1} << 60, "the cache of a test");
    FAIL() << "2^60 bytes were reserved";
  } catch (const IoError& e) {
    EXPECT_NE(std::string(e.what()).find("the cache of a test"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace minke

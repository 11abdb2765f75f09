#include "serve/api_keys.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

TEST(ApiKeys, WithoutKeysEverybodyIsAccepted) {
  const ApiKeys keys = ApiKeys::load("", " ");
  EXPECT_FALSE(keys.required());
  EXPECT_TRUE(keys.accepts(""));
  EXPECT_TRUE(keys.accepts("Bearer anything"));
}

TEST(ApiKeys, OnlyWholeKeysAreAccepted) {
  const ApiKeys keys({"abc", "defg"});
  EXPECT_TRUE(keys.accepts("Bearer abc"));
  EXPECT_TRUE(keys.accepts("bearer  defg "));
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer ab", "Bearer abcd", "Bearer abcabc",
                            "abc", "Basic abc", "Bearer abc defg"})
    EXPECT_FALSE(keys.accepts(wrong)) << wrong;
}

TEST(ApiKeys, FilesHaveCommentsAndMustHoldAKey) {
  const std::string path = testing::TempDir() + "minke_api_keys_" + std::to_string(getpid());
  write_file_atomic(path, "# ours\n\n one \r\ntwo");
  const ApiKeys keys = ApiKeys::load(path, "three");
  for (const char* key : {"one", "two", "three"})
    EXPECT_TRUE(keys.accepts(std::string("Bearer ") + key)) << key;
  EXPECT_FALSE(keys.accepts("Bearer # ours"));
  write_file_atomic(path, "# none\n");
  EXPECT_THROW(ApiKeys::load(path, ""), ConfigError);
  std::filesystem::remove(path);
  EXPECT_THROW(ApiKeys::load(path, ""), IoError);
}

}  // namespace
}  // namespace minke

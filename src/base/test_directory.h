// For tests: a directory that is removed with its test, and the message of an expected error.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.h"

namespace minke {

struct TestDirectory : testing::Test {
  TestDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "minke-test-XXXXXX").string();
    dir = mkdtemp(pattern.data());
  }
  ~TestDirectory() override { std::filesystem::remove_all(dir); }
  static void put(const std::filesystem::path& path, std::string_view content) {
    std::filesystem::remove(path);  // some disks wait for a file that is rewritten in place
    std::ofstream(path, std::ios::binary) << content;
  }
  std::filesystem::path dir;
};

// The message of the minke::Error that `f` throws; "no error" if it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

inline bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}
#define EXPECT_HOLDS(text, part) EXPECT_TRUE(::minke::holds(text, part)) << (text)

}  // namespace minke

// For tests of data/: a directory that is removed with its test, and a tokenizer of bytes.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.h"

namespace minke {

struct DataFiles : testing::Test {
  DataFiles() {
    std::string pattern = (std::filesystem::temp_directory_path() / "minke-data-XXXXXX").string();
    dir = mkdtemp(pattern.data());
  }
  ~DataFiles() override { std::filesystem::remove_all(dir); }

  std::string put(const std::string& name, std::string_view content) const {
    const std::filesystem::path path = dir / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
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

// For tests of data/: files below a directory that is removed with its test.
#pragma once
#include "base/test_directory.h"

namespace minke {

struct DataFiles : TestDirectory {
  // Makes the folders on the way; returns the path.
  std::string put(const std::string& name, std::string_view content) const {
    std::filesystem::create_directories((dir / name).parent_path());
    TestDirectory::put(dir / name, content);
    return (dir / name).string();
  }
};

}  // namespace minke

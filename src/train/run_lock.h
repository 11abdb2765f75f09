// Two runs that write the same files would spoil both.
#pragma once
#include <filesystem>

namespace minke {

// Held as long as the object lives; the kernel frees it with its process. ConfigError when another
// process holds it, IoError when the file cannot be made.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& path);
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();

 private:
  int fd_;
};

}  // namespace minke

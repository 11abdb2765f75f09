#include "train/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace minke {

RunLock::RunLock(const std::filesystem::path& path)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (fd_ < 0) throw_io_error(fmt::format("cannot open {}", path.string()), errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  throw ConfigError(
      fmt::format("{} is locked: another process trains into this directory; wait for it or give "
                  "another --out",
                  path.string()));
}

RunLock::~RunLock() {
  ::close(fd_);
}

}  // namespace minke

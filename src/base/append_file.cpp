#include "base/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace minke {

AppendFile::AppendFile(std::filesystem::path path, Open open) : path_(std::move(path)) {
  const int create = open == Open::New ? O_CREAT | O_EXCL : 0;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | create, 0666);
  if (fd_ < 0) throw_io_error(fmt::format("cannot open {}", path_.string()), errno);
}

AppendFile::~AppendFile() {
  ::close(fd_);
}

void AppendFile::append(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd_, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io_error(fmt::format("cannot write {}", path_.string()), errno);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace minke

#include "data/resumable_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 18;

}  // namespace

ResumableFile::ResumableFile(std::filesystem::path path, std::uint64_t length)
    : path_(std::move(path)), written_(length) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_io_error(fmt::format("cannot create {}", path_.string()), errno);
  struct stat status;
  const bool known = fstat(fd_, &status) == 0;
  const bool too_short = known && static_cast<std::uint64_t>(status.st_size) < length;
  if (!known || too_short || ftruncate(fd_, static_cast<off_t>(length)) != 0 ||
      lseek(fd_, 0, SEEK_END) < 0) {
    const int error = errno;
    ::close(std::exchange(fd_, -1));
    if (too_short)
      throw IoError(
          fmt::format("{} has {} bytes, at least {} expected: it was changed; remove its "
                      "folder and begin anew",
                      path_.string(), status.st_size, length));
    throw_io_error(fmt::format("cannot take up {}", path_.string()), error);
  }
}

ResumableFile::ResumableFile(ResumableFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      written_(other.written_),
      buffer_(std::move(other.buffer_)) {}

ResumableFile::~ResumableFile() {
  if (fd_ >= 0) ::close(fd_);
}

void ResumableFile::write(std::span<const std::byte> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= kBuffer) flush();
}

void ResumableFile::flush() {
  std::span<const std::byte> left(buffer_);
  while (!left.empty()) {
    const ssize_t n = ::write(fd_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw_io_error(fmt::format("cannot write {} after {} bytes", path_.string(), written_),
                     errno);
    left = left.subspan(static_cast<std::size_t>(n));
    written_ += static_cast<std::uint64_t>(n);
  }
  buffer_.clear();
}

std::uint64_t ResumableFile::sync() {
  flush();
  if (fsync(fd_) != 0) throw_io_error(fmt::format("cannot sync {}", path_.string()), errno);
  return written_;
}

}  // namespace minke

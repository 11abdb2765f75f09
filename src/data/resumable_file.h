// A file that grows at its end, and that a later process can take up again at any length that was
// synced: what an earlier one wrote behind it is cut off.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace minke {

class ResumableFile {
 public:
  // Makes the file, or goes on behind its first `length` bytes. IoError when it is shorter, or the
  // system says no.
  ResumableFile(std::filesystem::path path, std::uint64_t length);
  ResumableFile(ResumableFile&& other) noexcept;
  ResumableFile(const ResumableFile&) = delete;
  ResumableFile& operator=(const ResumableFile&) = delete;
  ~ResumableFile();  // what was not synced may be lost

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(as_byte_span(text)); }
  // Everything written is on disk afterwards; returns the length.
  std::uint64_t sync();
  std::uint64_t length() const { return written_ + buffer_.size(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();

  std::filesystem::path path_;
  int fd_;
  std::uint64_t written_;
  std::vector<std::byte> buffer_;
};

}  // namespace minke

// A file that grows at its end as things happen: each piece is handed to the operating system at
// once, so that a killed process loses at most the piece it was writing. Nothing is synced.
#pragma once
#include <filesystem>
#include <string_view>

namespace minke {

class AppendFile {
 public:
  enum class Open { Existing, New };  // New: it must not be there yet
  // IoError naming the path, as append.
  AppendFile(std::filesystem::path path, Open open);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  void append(std::string_view text);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_;
};

}  // namespace minke

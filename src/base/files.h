// Files: read-only mappings that survive truncation, checked writing, and replacing a file or a
// directory in one step. Every function throws IoError that names the path and the system's reason.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace minke {

inline std::span<const std::byte> as_byte_span(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A regular file mapped read-only.
//
// If the file is truncated (or its disk fails) while mapped, reading does not kill the process: the
// missing pages read as zeros and the mapping is marked. Whoever has finished reading asks
// check_intact() before trusting what was read.
class MappedFile {
 public:
  MappedFile() = default;
  static MappedFile open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // IoError naming the file when pages went missing since open.
  void check_intact() const;
  // Hints for bytes [begin, end): they are needed soon; they are not needed any more (memory
  // falls).
  void prefetch(std::size_t begin, std::size_t end) const;
  void drop(std::size_t begin, std::size_t end) const;

 private:
  void close() noexcept;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  void* slot_ = nullptr;  // in the registry that the signal handler reads
};

// The whole file. FormatError when it is larger than `limit`.
std::string read_file(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 32);

// An open file for reading at positions.
class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path);
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  ~FileReader();
  std::uint64_t size() const { return size_; }
  // Fills `out` from `offset`; IoError when the file ends before.
  void pread_exact(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int fd_;
  std::uint64_t size_;
};

struct FileDigest {
  std::uint64_t bytes = 0;
  std::uint64_t hash = 0;
  bool operator==(const FileDigest&) const = default;
};

// A new file, written in order. finish() must be called: only then is it known that every byte is
// on disk. Destroyed without it, the file is removed.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(as_byte_span(text)); }
  FileDigest finish();  // fsync and close
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_;
  bool regular_ = false;  // devices are never removed
  Hash64 hash_;
  std::uint64_t bytes_ = 0;
  std::uint64_t flushed_ = 0;
};

// A file that replaces another in one step: written at partial(), renamed by commit(), which its
// writer must have finished before. Without commit() nothing is left. A device or pipe cannot be
// replaced and is written directly.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();
  const std::filesystem::path& partial() const { return partial_; }
  void commit();

 private:
  std::filesystem::path path_, partial_;
  bool in_place_ = false;
};

// Writes beside `path`, syncs, and renames over it: afterwards it is whole or as it was before.
void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// A directory that appears whole or not at all, also when the process is killed.
//
// Files are written under path(), which lies beside the target. commit() syncs them, writes
// manifest.json with sizes and hashes last, and renames into place; a directory that was there is
// exchanged in one step and removed afterwards. Without commit() everything written is removed.
// What killed processes left beside the target is cleaned, or put back, by the next constructor.
// An existing target is replaced only if it is empty or has a manifest (that is, was made here).
class AtomicDirectory {
 public:
  explicit AtomicDirectory(const std::filesystem::path& target);
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  ~AtomicDirectory();

  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& target() const { return target_; }
  // Tells the digest of a file that FileWriter finished under path(), so that commit() need not
  // read it again. `name` is relative to path().
  void record(const std::string& name, FileDigest digest) { known_[name] = digest; }
  void commit();

 private:
  std::filesystem::path target_, partial_;
  int lock_fd_ = -1;
  bool committed_ = false;
  std::map<std::string, FileDigest> known_;
};

// Puts back what an interrupted replacement of `target` moved aside, and removes the partial
// directories of processes that are gone. AtomicDirectory calls it; readers may, before they look.
void recover_directory(const std::filesystem::path& target);

enum class Verify { Sizes, Hashes };
// Empty if `dir` has a manifest.json and every file in it is there with its size (and hash);
// otherwise what is wrong, with the file's name.
std::string checkpoint_defect(const std::filesystem::path& dir, Verify verify = Verify::Hashes);
inline bool is_complete_checkpoint(const std::filesystem::path& dir,
                                   Verify verify = Verify::Hashes) {
  return checkpoint_defect(dir, verify).empty();
}

}  // namespace minke

// The parts of base/files.h that put files and directories in place in one step.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kFormat = "minke-manifest-1";

int next_number() {
  static std::atomic<int> number{0};
  return number++;
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// "out" for "out" and "out/".
fs::path without_slash(fs::path path) {
  while (!path.has_filename() && path.has_parent_path() && path != path.root_path())
    path = path.parent_path();
  return path;
}

void sync_directory(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_io_error(fmt::format("cannot open {}", path.string()), errno);
  const int rc = fsync(fd);
  const int error = errno;
  ::close(fd);
  if (rc != 0 && error != EINVAL)
    throw_io_error(fmt::format("cannot sync {}", path.string()), error);
}

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_io_error(fmt::format("cannot open {}", path.string()), errno);
  const int rc = fsync(fd);
  const int error = errno;
  ::close(fd);
  if (rc != 0) throw_io_error(fmt::format("cannot sync {}", path.string()), error);
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw_io_error(fmt::format("cannot rename {} to {}", from.string(), to.string()), errno);
}

FileDigest digest_of(const fs::path& path) {
  const FileReader reader(path);
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  Hash64 hash;
  for (std::uint64_t at = 0; at < reader.size();) {
    const auto n = std::min<std::uint64_t>(buffer.size(), reader.size() - at);
    const std::span<std::byte> piece(buffer.data(), n);
    reader.pread_exact(at, piece);
    hash.add(piece);
    at += n;
  }
  return {reader.size(), hash.value()};
}

// The kernel frees the lock of a process that dies, however it dies. -1 when another holds it.
int lock_directory(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return -1;
}

bool same_directory(int fd, const fs::path& path) {
  struct stat a, b;
  return fstat(fd, &a) == 0 && ::stat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

void check_replaceable(const fs::path& target) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (status.type() == fs::file_type::not_found) return;
  if (error) throw IoError(fmt::format("cannot look at {}: {}", target.string(), error.message()));
  if (!fs::is_directory(status))
    throw IoError(
        fmt::format("{} exists and is not a directory; choose another place", target.string()));
  if (!fs::is_empty(target) && !fs::exists(target / kManifest))
    throw IoError(fmt::format(
        "{} holds files that minke did not write (it has no {}); choose another place or remove it",
        target.string(), kManifest));
}

bool exchange(const fs::path& a, const fs::path& b) {
  if (renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
  throw_io_error(fmt::format("cannot exchange {} and {}", a.string(), b.string()), errno);
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  std::error_code unknown;  // then creating the file says what is wrong
  const fs::file_status status = fs::status(path_, unknown);
  if (fs::is_directory(status))
    throw IoError(fmt::format("{} is a directory; give the name of a file", path_.string()));
  in_place_ = fs::exists(status) && !fs::is_regular_file(status);
  partial_ =
      in_place_
          ? path_
          : fs::path(path_.string() + fmt::format(".partial-{}-{}", ::getpid(), next_number()));
}

AtomicFile::~AtomicFile() {
  if (!in_place_ && !partial_.empty()) ::unlink(partial_.c_str());
}

void AtomicFile::commit() {
  if (in_place_) return;
  rename_or_throw(partial_, path_);
  partial_.clear();
  sync_directory(parent_of(path_));
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  FileWriter writer(file.partial());
  writer.write(content);
  writer.finish();
  file.commit();
}

void recover_directory(const fs::path& given) {
  const fs::path target = without_slash(given);
  const std::string partial_prefix = target.filename().string() + ".partial-";
  const std::string old_name = target.filename().string() + ".old";
  std::error_code error;
  std::vector<fs::path> partials;
  for (const auto& entry : fs::directory_iterator(parent_of(target), error))
    if (entry.path().filename().string().starts_with(partial_prefix))
      partials.push_back(entry.path());
  const fs::path old = parent_of(target) / old_name;
  if (fs::exists(old / kManifest)) {
    if (fs::exists(target, error))
      fs::remove_all(old, error);
    else
      rename_or_throw(old, target);
  }
  for (const fs::path& partial : partials) {
    if (fs::is_regular_file(fs::symlink_status(partial, error))) continue;
    const int fd = lock_directory(partial);
    if (fd < 0) continue;  // its writer is alive
    if (same_directory(fd, partial)) fs::remove_all(partial, error);
    ::close(fd);
  }
}

AtomicDirectory::AtomicDirectory(const fs::path& target) : target_(without_slash(target)) {
  if (target_.empty() || target_.filename() == "." || target_.filename() == "..")
    target_ = fs::absolute(target_).lexically_normal();
  std::error_code error;
  fs::create_directories(parent_of(target_), error);
  if (error)
    throw IoError(
        fmt::format("cannot create {}: {}", parent_of(target_).string(), error.message()));
  recover_directory(target_);
  check_replaceable(target_);
  for (;;) {
    partial_ = target_.string() + fmt::format(".partial-{}-{}", ::getpid(), next_number());
    if (::mkdir(partial_.c_str(), 0777) != 0) {
      if (errno == EEXIST) continue;
      throw_io_error(fmt::format("cannot create {}", partial_.string()), errno);
    }
    lock_fd_ = lock_directory(partial_);
    // Between the two calls another process may have taken it for a stale one.
    if (lock_fd_ >= 0 && same_directory(lock_fd_, partial_)) return;
    if (lock_fd_ >= 0) ::close(lock_fd_);
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code error;
  if (!committed_) fs::remove_all(partial_, error);
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

void AtomicDirectory::commit() {
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  std::vector<fs::path> paths, directories{partial_};
  for (const auto& entry : fs::recursive_directory_iterator(partial_)) {
    if (entry.is_directory())
      directories.push_back(entry.path());
    else
      paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    const std::string name = path.lexically_relative(partial_).generic_string();
    FileDigest digest;
    const auto known = known_.find(name);
    if (known != known_.end() && known->second.bytes == fs::file_size(path)) {
      digest = known->second;  // its writer has synced it
    } else {
      sync_file(path);
      digest = digest_of(path);
    }
    files[name] = {{"bytes", digest.bytes}, {"xxh64", to_hex(digest.hash)}};
  }
  FileWriter manifest(partial_ / kManifest);
  manifest.write(nlohmann::ordered_json{{"format", kFormat}, {"files", std::move(files)}}.dump(1) +
                 "\n");
  manifest.finish();
  for (const fs::path& directory : directories) sync_directory(directory);

  check_replaceable(target_);
  if (!fs::exists(target_)) {
    rename_or_throw(partial_, target_);
  } else if (!exchange(partial_, target_)) {
    const fs::path old = target_.string() + ".old";
    rename_or_throw(target_, old);
    rename_or_throw(partial_, target_);
    partial_ = old;
  }
  committed_ = true;
  sync_directory(parent_of(target_));
  std::error_code error;  // what was replaced; if this fails the next start cleans up
  fs::remove_all(partial_, error);
}

std::string checkpoint_defect(const fs::path& dir, Verify verify) {
  const fs::path manifest = dir / kManifest;
  std::error_code error;
  if (!fs::exists(manifest, error))
    return fmt::format("{} has no {}: it was not finished, or not written by minke", dir.string(),
                       kManifest);
  try {
    const auto json = read_json(manifest, std::size_t{64} << 20);
    if (json.at("format") != kFormat)
      return fmt::format("{}: \"format\" is {}, \"{}\" expected", manifest.string(),
                         json.at("format").dump(), kFormat);
    for (const auto& [name, entry] : json.at("files").items()) {
      const fs::path path = dir / name;
      if (!fs::is_regular_file(path, error)) return fmt::format("{} is missing", path.string());
      const auto bytes = entry.at("bytes").get<std::uint64_t>();
      const auto hash = entry.at("xxh64").get<std::string>();
      if (const auto found = fs::file_size(path); found != bytes)
        return fmt::format("{} has {} bytes, {} expected", path.string(), found, bytes);
      if (verify == Verify::Hashes)
        if (const auto found = to_hex(digest_of(path).hash); found != hash)
          return fmt::format("{} has the hash {}, {} expected", path.string(), found, hash);
    }
  } catch (const nlohmann::json::exception& e) {
    return fmt::format("{}: {}", manifest.string(), e.what());
  } catch (const fs::filesystem_error& e) {
    return fmt::format("{}: {}", dir.string(), e.what());
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace minke

// The directory in which shards are made, and what a later process needs to go on after a kill or
// on a disk that was full.
//
//   OUT.partial/     locked while a process works here
//     documents      a DocumentRecord for every item of the input (first pass)
//     outcomes       one byte for every item, once all are known
//     state.json     how far all files may be trusted; replaced in one step, after they are synced
//     train-*, held_out-*, skipped.jsonl, manifest.json
//   OUT/             appears by a rename, when everything is there
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/document_input.h"
#include "data/shard_writer.h"

namespace minke {

struct BuildState {
  enum class Pass { Read, Write };
  Pass pass = Pass::Read;
  InputPosition input;              // of the pass
  std::int64_t documents = 0;       // items that the first pass has seen
  std::int64_t written = 0;         // of them, those that the second pass is done with
  std::int64_t broken_files = 0;    // that could not be opened or read to their end
  std::uint64_t skipped_bytes = 0;  // of skipped.jsonl
  std::vector<std::string> sources;
  ShardState train, held_out;
};

// Held by the process that works in a directory; the kernel frees it with the process.
class DirectoryLock {
 public:
  DirectoryLock() = default;
  explicit DirectoryLock(const std::filesystem::path& directory);  // ConfigError: another one does
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~DirectoryLock();

 private:
  int fd_ = -1;
};

class BuildDirectory {
 public:
  enum class Found { Nothing, Begun, Published };

  // `run` identifies inputs, tokenizer and settings. Makes OUT.partial, or takes up the one that
  // the same run left; `restart` removes it first. ConfigError when OUT or OUT.partial belongs to
  // another run, or another process works there.
  BuildDirectory(const std::filesystem::path& out, nlohmann::ordered_json run, bool restart);
  Found found() const { return found_; }
  std::filesystem::path file(const std::string& name) const { return partial_ / name; }
  const nlohmann::ordered_json& run() const { return run_; }

  BuildState load_state() const;  // a new one when there is none
  void save_state(const BuildState& state) const;
  // The manifest is the last file to be written; then OUT appears.
  void publish(const nlohmann::ordered_json& manifest);
  nlohmann::ordered_json manifest() const;  // of OUT

 private:
  void check_out();
  void take_up(bool restart);
  void rename_into_place();

  std::filesystem::path out_, partial_;
  nlohmann::ordered_json run_;
  Found found_ = Found::Nothing;
  DirectoryLock lock_;
};

}  // namespace minke

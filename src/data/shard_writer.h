// Writes the shards of one split (data/shard_format.h). A shard is closed by the first document
// that fills it, so that none lies in two; its bytes are a function of the documents alone.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "data/resumable_file.h"
#include "data/shard_format.h"

namespace minke {

// What is safely on disk.
struct ShardState {
  std::int64_t shard = 0;  // the one that is being written; those before it are whole
  std::uint64_t tokens_bytes = 0, index_bytes = 0;  // of it
  bool operator==(const ShardState&) const = default;
};

class ShardWriter {
 public:
  // Goes on behind `state`: what lies in `directory` after it is overwritten.
  ShardWriter(std::filesystem::path directory, Split split, int id_bytes, std::int64_t shard_tokens,
              ShardState state = {});

  void add(std::span<const std::int32_t> ids, std::uint32_t source, std::uint64_t text_bytes);
  ShardState sync();
  // Closes the last shard and returns how many there are.
  std::int64_t finish();

 private:
  void open(std::uint64_t tokens_bytes, std::uint64_t index_bytes);
  void close();

  std::filesystem::path directory_;
  Split split_;
  int id_bytes_;
  std::int64_t shard_tokens_;
  std::int64_t shard_;
  std::optional<ResumableFile> tokens_, index_;
};

}  // namespace minke

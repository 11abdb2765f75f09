// The files that `minke data` writes, all numbers little-endian.
//
//   train-00000.tokens      token ids, 2 bytes each where the vocabulary has at most 65,536
//   entries,
//                           else 4; documents one after the other
//   train-00000.index       a ShardDocument for each of them
//   held_out-00000.*        the same of what is never trained on
//   skipped.jsonl           what was wrong with the input and left out: path, line, reason
//   manifest.json           sizes and hashes of all files, settings, sources and counts; written
//                           last
#pragma once
#include <bit>
#include <cstdint>
#include <string>

namespace minke {

static_assert(std::endian::native == std::endian::little, "shards are read as they lie on disk");

struct ShardDocument {
  std::uint64_t begin;       // first token, within the shard
  std::uint64_t text_bytes;  // of the text they stand for
  std::uint32_t tokens;      // with begin- and end-of-sentence
  std::uint32_t source;      // in the manifest's list
};
static_assert(sizeof(ShardDocument) == 24);

inline constexpr const char* kShardFormat = "minke-shards-1";

enum class Split { Train, HeldOut };
inline const char* name_of(Split split) {
  return split == Split::Train ? "train" : "held_out";
}
std::string shard_name(Split split, std::int64_t number);  // "train-00000"

inline int id_bytes_of(std::int64_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

}  // namespace minke

// Directories that `minke data` wrote, opened for training: mapped, nothing is read that is not
// asked for.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text_encoder.h"
#include "data/token_corpus.h"

namespace minke {

// Whether the path is such a directory.
bool is_shard_directory(std::string_view path);

struct ShardedText {
  TokenCorpus train, held_out;
  std::vector<double> held_out_fractions;  // of each directory
};

// The shards of all directories, one after the other; sources of one name are one source. Sizes of
// files are checked, hashes are not (`minke data --verify` does). FormatError when a directory is
// not whole or of another version, ConfigError when it was made with another tokenizer than that of
// `encoder`, whose directory is `tokenizer`.
ShardedText open_shards(const std::vector<std::string>& directories, const TextEncoder& encoder,
                        const std::string& tokenizer);

}  // namespace minke

// From files of text to shards of tokens (data/shard_format.h), for `minke data`.
//
// Two passes over the input. The first reads and cleans every document and remembers a record of
// 280 bytes of it, on disk; then duplicates and the held-out split are decided; the second pass
// reads again, and tokenises what is kept. Texts are never held: memory is a few times
// `batch_bytes` and the longest item, and 24 bytes a document while duplicates are looked for.
//
// The files are a function of input, tokenizer and settings: neither the number of threads nor
// kills in between change a byte. Every item of the input has one outcome (document_record.h).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "data/document_check.h"

namespace minke {

struct ShardBuild {
  std::vector<std::string> in;
  std::string tokenizer;  // directory
  std::string out;
  DataSettings settings;
  // On these no byte of the result depends.
  std::int64_t batch_bytes = std::int64_t{16} << 20;
  double checkpoint_seconds = 10;
  bool restart = false;
};

// Makes build.out, going on from where the same build was killed, and returns its manifest; when it
// is there already, only that. Interrupted when `stop` returns true, FormatError for bad data that
// the settings refuse, IoError when a file changed between the passes or the disk is full (the same
// call then goes on), ConfigError when build.out or OUT.partial belongs to another build.
nlohmann::ordered_json build_shards(const ShardBuild& build, FunctionRef<bool()> stop);

}  // namespace minke

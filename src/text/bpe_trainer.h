// Trains a byte-level BPE vocabulary with DeepSeek-V3's split patterns and added tokens.
//   Pieces (pre_tokenizer.h) are counted; then, until the vocabulary is full, the most frequent
//   pair of neighbours is joined (Sennrich, Haddow, Birch, arXiv 1508.07909). Among equal counts
//   the pair of lowest ids wins, so that the result depends on the texts and the options alone.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace minke {

struct BpeTrainOptions {
  std::int32_t vocab_size = 8192;  // ids in all: bytes, merges and added tokens
  std::int64_t min_count = 2;      // a pair that is rarer is not joined
};

struct TrainedTokenizer {
  std::vector<std::string> vocab;        // by id: begin, end, pad; the 256 bytes; what merges made
  std::vector<Merge> merges;             // by rank
  std::vector<AddedToken> added_tokens;  // begin, end, pad, and DeepSeek-V3's others after vocab

  // Less than asked for when the texts do not hold as many pairs.
  std::int32_t vocab_size() const { return added_tokens.back().id + 1; }
  Tokenizer tokenizer() const;
};

// The smallest `vocab_size` that can be asked for.
std::int32_t least_vocab_size();

// Pieces longer than 256 bytes are counted in parts of at most that. Throws ConfigError for a size
// or count that cannot be, FormatError for a text that is not UTF-8.
TrainedTokenizer train_bpe(std::span<const std::string_view> texts, const BpeTrainOptions& options);

// Writes tokenizer.json and tokenizer_config.json (with DeepSeek-V3's chat template) into `dir`,
// which is made when it is missing. Each file is replaced in one step. Throws IoError.
void write_tokenizer(const std::filesystem::path& dir, const TrainedTokenizer& tokenizer);

}  // namespace minke

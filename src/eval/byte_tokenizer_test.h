// Tests only: a tokenizer with a token a byte, begin of sentence, and the pair "th".
#pragma once
#include <unistd.h>

#include <filesystem>

#include "model/checkpoint.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"

namespace minke {

inline constexpr std::int32_t kBos = 256;
inline constexpr Index kByteVocabulary = 258;

inline Tokenizer byte_tokenizer(bool add_bos) {
  TokenizerParts parts;
  for (int b = 0; b < 256; ++b)
    parts.vocab.push_back(to_stand_ins(std::string(1, static_cast<char>(b))));
  parts.vocab.push_back("<bos>");
  parts.vocab.push_back("th");
  parts.merges = {{'t', 'h', 257}};
  parts.added_tokens = {{.id = kBos, .content = "<bos>", .special = true}};
  TokenizerConfig config;
  config.bos_token = "<bos>";
  config.add_bos_token = add_bos;
  return Tokenizer(std::move(parts), config);
}

}  // namespace minke

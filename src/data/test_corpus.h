// For tests of data/: small corpora whose tokens are letters.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_corpus.h"

namespace minke {

inline constexpr std::int32_t eos = 1000;

inline const auto bytes_of = [](std::string_view text) {
  return std::vector<std::int32_t>(text.begin(), text.end());
};

// Documents of different lengths whose letters tell them apart.
inline std::vector<Document> letters(int n) {
  std::vector<Document> documents;
  for (int i = 0; i < n; ++i)
    documents.push_back(
        {std::string(static_cast<std::size_t>(1 + i * 7 % 11), static_cast<char>('a' + i)),
         i % 2 ? "odd" : "even", "x.txt", i + 1});
  return documents;
}

inline TokenCorpus letter_corpus(int n) {
  return tokenize_corpus(letters(n), bytes_of, eos);
}

inline std::vector<std::int32_t> all_tokens(const TokenCorpus& corpus) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(corpus.tokens.size()));
  corpus.tokens.copy(0, tokens);
  return tokens;
}

}  // namespace minke

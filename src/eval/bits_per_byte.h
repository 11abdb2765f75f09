// Loss, perplexity and bits per byte of text, per source and overall.
//   loss = nats / tokens,   perplexity = e^loss,   bits per byte = nats / (ln 2 * bytes)
// Bits per byte compares models with different tokenizers; the other two do not.
//
// A document begins with begin-of-sentence where the tokenizer says add_bos_token; without it
// nothing predicts the first token, which then counts neither as a token nor with its bytes. End of
// sentence is not scored.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "eval/token_scorer.h"
#include "text/tokenizer.h"

namespace minke {

struct TextScore {
  Index documents = 0;
  Index bytes = 0;   // of the scored tokens
  Index tokens = 0;  // scored
  double nats = 0;

  double loss() const { return nats / static_cast<double>(tokens); }  // not a number without any
  double perplexity() const;
  double bits_per_byte() const;
  TextScore& operator+=(const TextScore& other);
};

struct NamedScore {
  std::string source;
  TextScore score;
};

struct TextScores {
  TextScore overall;
  std::vector<NamedScore> sources;  // by name
};

class TextScorer {
 public:
  TextScorer(const Model& model, const Tokenizer& tokenizer, const WindowSettings& settings,
             Index batch_tokens);

  // Called with the bytes of text done so far, as far as is known; it may throw to end the work.
  std::function<void(std::int64_t)> on_progress;

  // FormatError when the text is not UTF-8.
  void add(std::string_view text, const std::string& source);
  // Scores what is waiting.
  TextScores finish();

 private:
  struct Source {
    std::size_t group;
    TextScore score;  // without nats and tokens
  };
  void report(Index scored);

  const Tokenizer& tokenizer_;
  TokenScorer scorer_;
  std::map<std::string, Source> sources_;
  std::int64_t bytes_before_ = 0,
               document_bytes_ = 0;  // of whole documents, of the one being added
  Index tokens_before_ = 0, document_tokens_ = 0;
};

}  // namespace minke

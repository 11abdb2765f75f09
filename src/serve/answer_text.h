// The text of one generated choice, as it comes: whole UTF-8 characters only, and nothing that
// could still become a stop string.
#pragma once
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "infer/request.h"

namespace minke {

// A token with its part of the text, for log-probabilities.
struct TextToken {
  ScoredToken scored;
  std::string bytes;       // of its text; fewer when a stop string cut it; "" of a special token
  std::size_t begin = 0;   // in bytes of the text
  std::size_t offset = 0;  // in characters of the text
};

struct TextPiece {
  std::string text;
  std::vector<TextToken> tokens;  // those whose text ends in this piece
};

class AnswerText {
 public:
  // `offset`: characters that stand before it (the echoed prompt).
  explicit AnswerText(std::vector<std::string> stops = {}, std::size_t offset = 0);

  TextPiece push(ScoredToken token, std::string_view bytes);
  // What was held back; an incomplete character is one U+FFFD. Empty after a stop string.
  TextPiece finish();
  // A stop string came: it and what follows are no part of the text.
  bool stopped() const { return stopped_; }
  std::size_t offset() const { return characters_; }

 private:
  void decoded(std::size_t n_before);
  TextPiece release();
  TextPiece take(std::size_t n, bool all);
  std::size_t find_stop() const;      // in held_, or npos
  std::size_t possible_stop() const;  // where a stop string could begin at the end of held_

  std::vector<std::string> stops_;
  std::string raw_;             // bytes of an incomplete character
  std::string held_;            // characters not handed out
  std::size_t held_begin_ = 0;  // position in the text, in bytes
  std::size_t characters_ = 0;  // decoded so far
  std::deque<TextToken> waiting_;
  bool stopped_ = false;
};

// Number of characters of valid UTF-8.
std::size_t count_characters(std::string_view text);

}  // namespace minke

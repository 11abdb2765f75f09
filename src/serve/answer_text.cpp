#include "serve/answer_text.h"

#include <algorithm>

#include "text/utf8.h"

namespace minke {

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

AnswerText::AnswerText(std::vector<std::string> stops, std::size_t offset)
    : stops_(std::move(stops)), characters_(offset) {}

TextPiece AnswerText::push(ScoredToken token, std::string_view bytes) {
  if (stopped_) return {};
  waiting_.push_back({.scored = std::move(token),
                      .bytes = std::string(bytes),
                      .begin = held_begin_ + held_.size() + raw_.size(),
                      .offset = characters_});
  const std::size_t before = held_.size();
  raw_ += bytes;
  take_utf8(raw_, held_);
  decoded(before);
  return release();
}

TextPiece AnswerText::finish() {
  if (stopped_) return {};
  const std::size_t before = held_.size();
  finish_utf8(raw_, held_);
  decoded(before);
  const std::size_t stop = find_stop();
  stopped_ = stop != std::string::npos;
  return take(stopped_ ? stop : held_.size(), !stopped_);
}

void AnswerText::decoded(std::size_t n_before) {
  characters_ += count_characters(std::string_view(held_).substr(n_before));
}

TextPiece AnswerText::release() {
  const std::size_t stop = find_stop();
  if (stop == std::string::npos) return take(possible_stop(), false);
  stopped_ = true;
  return take(stop, false);
}

TextPiece AnswerText::take(std::size_t n, bool all) {
  TextPiece piece{.text = held_.substr(0, n), .tokens = {}};
  held_.erase(0, n);
  held_begin_ += n;
  while (!waiting_.empty()) {
    TextToken& token = waiting_.front();
    const std::size_t end = token.begin + token.bytes.size();
    const bool is_out = stopped_ ? token.begin < held_begin_ : end <= held_begin_;
    if (!is_out && !all) break;
    if (stopped_) token.bytes.resize(std::min(token.bytes.size(), held_begin_ - token.begin));
    piece.tokens.push_back(std::move(token));
    waiting_.pop_front();
  }
  return piece;
}

std::size_t AnswerText::find_stop() const {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  return first;
}

std::size_t AnswerText::possible_stop() const {
  std::size_t begin = held_.size();
  for (const std::string& stop : stops_) {
    const std::size_t longest = std::min(stop.size() - 1, held_.size());
    for (std::size_t n = longest; n > held_.size() - begin; --n)
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n))
        begin = held_.size() - n;
  }
  return begin;
}

}  // namespace minke

#include "serve/tool_call_reader.h"

#include <algorithm>

namespace minke {
namespace {

constexpr std::string_view kOpens = "\n```json\n", kCloses = "\n```";

// How many bytes at the end of `text` begin `mark`.
std::size_t overlap(std::string_view text, std::string_view mark) {
  for (std::size_t n = std::min(text.size(), mark.size()); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

// Position after white space and `c`, or npos when something else stands there or the text ends.
std::size_t after(std::string_view text, std::size_t at, char c) {
  at = text.find_first_not_of(" \t\r\n", at);
  return at != std::string_view::npos && text[at] == c ? at + 1 : std::string_view::npos;
}

// The end of the string literal that begins after its opening quote at `at`, or npos.
std::size_t end_of_string(std::string_view text, std::size_t at) {
  for (; at < text.size() && text[at] != '"'; ++at)
    if (text[at] == '\\') ++at;
  return at < text.size() ? at + 1 : std::string_view::npos;
}

}  // namespace

bool ToolTokenReader::mark(std::int32_t id, std::vector<ToolPiece>& out) {
  if (id == tokens_.calls_begin) {
    state_ = State::Between;
  } else if (id == tokens_.call_begin) {
    state_ = State::Type;
  } else if (id == tokens_.separator && inside()) {
    state_ = State::Head;
  } else if (id == tokens_.call_end && inside()) {
    end_call(out);
  } else if (id == tokens_.calls_end && inside()) {
    state_ = State::Between;  // what follows is no part of the answer
  } else {
    return id == tokens_.separator || id == tokens_.call_end || id == tokens_.calls_end;
  }
  held_.clear();
  return true;
}

void ToolTokenReader::text(std::string_view text, std::vector<ToolPiece>& out) {
  if (state_ != State::Head && state_ != State::Arguments) return;
  held_ += text;
  if (state_ == State::Head) {
    const std::size_t open = held_.find(kOpens);
    if (open == std::string::npos) return;
    begin_call(held_.substr(0, open), out);
    held_.erase(0, open + kOpens.size());
  }
  const std::size_t n = held_.size() - overlap(held_, kCloses);
  if (n > 0) out.push_back({.index = n_calls_ - 1, .name = {}, .arguments = held_.substr(0, n)});
  held_.erase(0, n);
}

void ToolTokenReader::begin_call(std::string name, std::vector<ToolPiece>& out) {
  out.push_back({.index = n_calls_++, .name = std::move(name), .arguments = ""});
  state_ = State::Arguments;
}

void ToolTokenReader::end_call(std::vector<ToolPiece>& out) {
  if (state_ == State::Head) {  // without the fence: a name, perhaps arguments in the next line
    const std::size_t line = std::min(held_.find('\n'), held_.size());
    begin_call(held_.substr(0, line), out);
    held_.erase(0, std::min(line + 1, held_.size()));
  }
  if (state_ == State::Arguments && !held_.empty() && held_ != kCloses)
    out.push_back({.index = n_calls_ - 1, .name = {}, .arguments = held_});
  state_ = State::Between;
}

void ToolTokenReader::finish(std::vector<ToolPiece>& out) {
  if (state_ == State::Arguments) end_call(out);
}

void ToolObjectReader::text(std::string_view text, std::vector<ToolPiece>& out) {
  std::string rest(text);
  if (!begun_) {
    head_ += text;
    if (!read_head(out)) return;
    rest = std::move(head_);
  }
  std::size_t n = 0;
  for (; n < rest.size() && !ended_; ++n) {
    const char c = rest[n];
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      ended_ = --depth_ <= 0;
    }
  }
  rest.resize(n);
  if (!rest.empty()) out.push_back({.index = 0, .name = {}, .arguments = std::move(rest)});
}

// {"name": "NAME", "arguments": ; head_ then holds what follows.
bool ToolObjectReader::read_head(std::vector<ToolPiece>& out) {
  constexpr auto npos = std::string_view::npos;
  const std::string_view text = head_;
  std::size_t at = after(text, 0, '{'), name = 0;
  for (const bool is_name : {true, false}) {
    if (at != npos) at = after(text, at, '"');
    if (at != npos) at = end_of_string(text, at);  // the key
    if (at != npos) at = after(text, at, ':');
    if (!is_name || at == npos) continue;
    at = name = after(text, at, '"');
    if (at != npos) at = end_of_string(text, at);
    if (at == npos) return false;
    out.push_back(
        {.index = 0, .name = std::string(text.substr(name, at - 1 - name)), .arguments = ""});
    at = after(text, at, ',');
  }
  if (at != npos) at = text.find_first_not_of(" \t\r\n", at);
  if (at == npos) {
    out.clear();
    return false;
  }
  head_.erase(0, at);
  begun_ = true;
  return true;
}

}  // namespace minke

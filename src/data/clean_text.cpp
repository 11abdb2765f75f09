#include "data/clean_text.h"

#include <algorithm>
#include <unordered_set>

namespace minke {
namespace {

constexpr std::size_t kCountedLine = 4;  // bytes

bool unify_line_ends(std::string& text) {
  std::size_t to = text.find('\r');
  if (to == std::string::npos) return false;
  for (std::size_t from = to; from < text.size(); ++from) {
    const bool is_return = text[from] == '\r';
    if (is_return && from + 1 < text.size() && text[from + 1] == '\n') continue;
    text[to++] = is_return ? '\n' : text[from];
  }
  text.resize(to);
  return true;
}

bool is_control(unsigned char byte) {
  return (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F;
}

// A carriage return stays where line ends are not unified: it is one.
bool drop_control_characters(std::string& text) {
  constexpr std::string_view kNoBreak = "\xEF\xBB\xBF";  // U+FEFF
  std::size_t to = 0;
  for (std::size_t from = 0; from < text.size();) {
    if (is_control(static_cast<unsigned char>(text[from]))) {
      ++from;
    } else if (text[from] == kNoBreak[0] && text.compare(from, kNoBreak.size(), kNoBreak) == 0) {
      from += kNoBreak.size();
    } else {
      text[to++] = text[from++];
    }
  }
  const bool changed = to != text.size();
  text.resize(to);
  return changed;
}

TextFault fault_of(const std::string& text, const CleanOptions& options) {
  const auto bytes = static_cast<std::int64_t>(text.size());
  if (bytes < options.min_document_bytes) return TextFault::TooShort;
  if (options.max_document_bytes > 0 && bytes > options.max_document_bytes)
    return TextFault::TooLong;
  if (options.max_repeated_lines < 1 && repeated_line_share(text) > options.max_repeated_lines)
    return TextFault::RepeatedLines;
  return TextFault::None;
}

}  // namespace

double repeated_line_share(std::string_view text) {
  std::unordered_set<std::string_view> seen;
  std::size_t all = 0, repeated = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.size() < kCountedLine) continue;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    all += line.size();
    if (!seen.insert(line).second) repeated += line.size();
  }
  return all == 0 ? 0 : static_cast<double>(repeated) / static_cast<double>(all);
}

Cleaned clean_text(std::string& text, const CleanOptions& options) {
  Cleaned cleaned;
  if (options.line_ends) cleaned.line_ends = unify_line_ends(text);
  if (options.control_characters) cleaned.control_characters = drop_control_characters(text);
  cleaned.fault = fault_of(text, options);
  return cleaned;
}

}  // namespace minke

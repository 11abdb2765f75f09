#include "io/json_scanner.h"

#include <fmt/format.h>

#include <limits>

#include "base/error.h"
#include "base/log.h"

namespace minke {
namespace {

constexpr int kMaxDepth = 64;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void append_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 63));
    out += static_cast<char>(0x80 | (code & 63));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 63));
    out += static_cast<char>(0x80 | ((code >> 6) & 63));
    out += static_cast<char>(0x80 | (code & 63));
  }
}

bool valid_utf8(std::string_view s) {
  for (std::size_t i = 0; i < s.size();) {
    const auto byte = [&](std::size_t k) {
      return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u;
    };
    const unsigned c = byte(i);
    const int more = c < 0x80         ? 0
                     : (c >> 5) == 6  ? 1
                     : (c >> 4) == 14 ? 2
                     : (c >> 3) == 30 ? 3
                                      : -1;
    if (more < 0) return false;
    unsigned code = more == 0 ? c : c & (0x3Fu >> more);
    for (int k = 1; k <= more; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return false;
      code = code << 6 | (byte(i + k) & 63);
    }
    constexpr unsigned kLeast[4] = {0, 0x80, 0x800, 0x10000};
    if (code < kLeast[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    i += static_cast<std::size_t>(more) + 1;
  }
  return true;
}

}  // namespace

void throw_format_error(std::string_view message) {
  throw FormatError(readable_line(message));
}

void JsonScanner::fail(std::string_view expected) const {
  throw_format_error(fmt::format("{}: malformed JSON at byte {}: {} expected; is the file damaged?",
                                 file_, at_, expected));
}

void JsonScanner::white_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
    ++at_;
}

char JsonScanner::peek() {
  white_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonScanner::take(char c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}

void JsonScanner::expect(char c) {
  if (!take(c)) fail(fmt::format("'{}'", c));
}

unsigned JsonScanner::hex4() {
  unsigned code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (is_digit(c))
      code = code * 16 + static_cast<unsigned>(c - '0');
    else if ((c | 32) >= 'a' && (c | 32) <= 'f')
      code = code * 16 + static_cast<unsigned>((c | 32) - 'a' + 10);
    else
      fail("four hexadecimal digits");
  }
  return code;
}

std::string JsonScanner::string() {
  expect('"');
  std::string out;
  for (;;) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20)
      ++at_;
    out.append(text_.substr(begin, at_ - begin));
    if (at_ >= text_.size()) fail("a closing quote");
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) < 0x20) fail("no control character in a string");
    ++at_;
    if (c == '"') break;
    const char escape = at_ < text_.size() ? text_[at_++] : '\0';
    switch (escape) {
      case '"':
      case '\\':
      case '/':
        out += escape;
        break;
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'u': {
        unsigned code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {  // first half of a pair
          if (text_.substr(at_, 2) != "\\u") fail("the second half of a surrogate pair");
          at_ += 2;
          const unsigned low = hex4();
          if (low < 0xDC00 || low >= 0xE000) fail("the second half of a surrogate pair");
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code < 0xE000) {
          fail("the first half of a surrogate pair");
        }
        append_utf8(out, code);
        break;
      }
      default:
        fail("an escape sequence");
    }
  }
  if (!valid_utf8(out)) fail("UTF-8");
  return out;
}

std::uint64_t JsonScanner::unsigned_integer() {
  peek();
  if (at_ >= text_.size() || !is_digit(text_[at_])) fail("a whole number that is not negative");
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  for (; at_ < text_.size() && is_digit(text_[at_]); ++at_) {
    const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
    if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / 10)
      fail("a number below 2^64");
    value = value * 10 + digit;
  }
  if (at_ - begin > 1 && text_[begin] == '0') fail("a number without leading zeros");
  if (at_ < text_.size() && (text_[at_] == '.' || (text_[at_] | 32) == 'e')) fail("a whole number");
  return value;
}

void JsonScanner::skip_value(int depth) {
  if (depth > kMaxDepth) fail("fewer levels of nesting");
  const char c = peek();
  if (c == '{') {
    object([&](const std::string&) { skip_value(depth + 1); });
  } else if (c == '[') {
    array([&] { skip_value(depth + 1); });
  } else if (c == '"') {
    string();
  } else if (c == '-' || is_digit(c)) {
    if (c == '-') ++at_;
    if (at_ >= text_.size() || !is_digit(text_[at_])) fail("a digit");
    while (at_ < text_.size() && (is_digit(text_[at_]) || text_[at_] == '.' || text_[at_] == '+' ||
                                  text_[at_] == '-' || (text_[at_] | 32) == 'e'))
      ++at_;
  } else {
    for (std::string_view word : {"true", "false", "null"})
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return;
      }
    fail("a value");
  }
}

void JsonScanner::end() {
  white_space();
  if (at_ != text_.size()) fail("nothing more");
}

}  // namespace minke

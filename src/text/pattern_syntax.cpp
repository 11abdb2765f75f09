#include "text/pattern_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr std::size_t kLongestPattern = 2048;  // bytes
constexpr std::uint32_t kMostRepetitions = 1000;
constexpr int kDeepestGroup = 32;
constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

using Range = CodePointRange;
using Ranges = std::vector<CodePointRange>;
using Kind = PatternNode::Kind;

Ranges complement(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  Ranges out;
  std::uint32_t next = 0;
  for (const Range& r : ranges) {
    if (r.first > next) out.push_back({next, r.first - 1});
    next = std::max(next, r.last + 1);
  }
  if (next <= kLastCodePoint) out.push_back({next, kLastCodePoint});
  return out;
}

// \d, \w, \s as ECMA-262 defines them, and their complements in capitals.
std::optional<Ranges> named_class(std::uint32_t letter) {
  switch (letter) {
    case 'd':
      return Ranges{{'0', '9'}};
    case 'w':
      return Ranges{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 's':
      return Ranges{{0x09, 0x0D},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                    {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    case 'D':
      return complement(*named_class('d'));
    case 'W':
      return complement(*named_class('w'));
    case 'S':
      return complement(*named_class('s'));
    default:
      return std::nullopt;
  }
}

Ranges any_but_line_break() {
  return complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
}

class PatternParser {
 public:
  explicit PatternParser(std::string_view pattern) : pattern_(pattern) {}

  PatternNode parse() {
    PatternNode out = alternatives(0);
    if (more()) fail("a \")\" without \"(\"");
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ConfigError(fmt::format("{} at byte {} is not supported", what, at_));
  }

  bool more() const { return at_ < pattern_.size(); }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  bool take(char c) {
    if (!more() || peek() != c) return false;
    ++at_;
    return true;
  }
  std::uint32_t take_code_point() {
    const CodePoint c = code_point_at(pattern_, at_);
    at_ += c.bytes;
    return c.code;
  }

  PatternNode alternatives(int depth) {
    if (depth > kDeepestGroup) fail("a group that is nested this deep");
    PatternNode out{.kind = Kind::Alternatives};
    do out.parts.push_back(sequence(depth));
    while (take('|'));
    return out;
  }

  PatternNode sequence(int depth) {
    PatternNode out{.kind = Kind::Sequence};
    while (more() && peek() != '|' && peek() != ')') out.parts.push_back(repeated(depth));
    return out;
  }

  PatternNode repeated(int depth) {
    PatternNode part = atom(depth);
    PatternNode out{.kind = Kind::Repetition};
    if (take('*')) {
      out.min = 0, out.max = PatternNode::kMany;
    } else if (take('+')) {
      out.min = 1, out.max = PatternNode::kMany;
    } else if (take('?')) {
      out.min = 0, out.max = 1;
    } else if (take('{')) {
      counted_repetition(out);
    } else {
      return part;
    }
    take('?');  // lazy: the same texts
    if (more() && std::string_view("*+?{").find(peek()) != std::string_view::npos)
      fail("a repetition of a repetition");
    out.parts.push_back(std::move(part));
    return out;
  }

  void counted_repetition(PatternNode& out) {
    out.min = out.max = number();
    if (take(',')) out.max = peek() == '}' ? PatternNode::kMany : number();
    if (!take('}')) fail("a \"{\" that is no {m}, {m,} or {m,n}");
    if (out.min > out.max) fail("a repetition {m,n} with m > n");
  }

  std::uint32_t number() {
    if (peek() < '0' || peek() > '9') fail("a \"{\" that is no {m}, {m,} or {m,n}");
    std::uint32_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<std::uint32_t>(pattern_[at_++] - '0');
      if (value > kMostRepetitions) fail(fmt::format("a repetition above {}", kMostRepetitions));
    }
    return value;
  }

  PatternNode atom(int depth) {
    if (take('(')) return group(depth);
    if (take('^')) return {.kind = Kind::Assertion, .when = ByteNfa::When::AtBegin};
    if (take('$')) return {.kind = Kind::Assertion, .when = ByteNfa::When::AtEnd};
    if (take('.')) return characters(any_but_line_break());
    if (take('[')) return characters(bracket());
    if (take('\\')) return characters(escaped());
    if (std::string_view("*+?{").find(peek()) != std::string_view::npos)
      fail(fmt::format("\"{}\" with nothing to repeat", peek()));
    const std::uint32_t code = take_code_point();
    return characters({{code, code}});
  }

  static PatternNode characters(Ranges ranges) {
    return {.kind = Kind::Characters, .characters = std::move(ranges)};
  }

  PatternNode group(int depth) {
    if (take('?') && !take(':')) {
      const char next = peek() == '<' ? peek(1) : peek();
      fail(next == '=' || next == '!' ? "look-around" : fmt::format("the group \"(?{}\"", peek()));
    }
    PatternNode out = alternatives(depth + 1);
    if (!take(')')) fail("a \"(\" without \")\"");
    return out;
  }

  // Behind the backslash, outside of brackets and inside alike.
  Ranges escaped() {
    if (!more()) fail("a backslash at the end");
    const char c = peek();
    if (const auto named = named_class(static_cast<unsigned char>(c))) {
      ++at_;
      return *named;
    }
    if (c >= '1' && c <= '9') fail("a back reference");
    if (c == 'b' || c == 'B') fail(fmt::format("the assertion \\{}", c));
    const std::uint32_t code = escaped_code(take_code_point());
    return {{code, code}};
  }

  std::uint32_t escaped_code(std::uint32_t c) {
    switch (c) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case '0':
        return 0;
      case 'x':
        return hexadecimal(2);
      case 'u':
        return hexadecimal(4);
      default:
        break;
    }
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      fail(fmt::format("the escape \\{}", static_cast<char>(c)));
    return c;
  }

  std::uint32_t hexadecimal(int digits) {
    std::uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const std::size_t digit =
          std::string_view("0123456789abcdef").find(static_cast<char>(peek() | 0x20));
      if (!more() || digit == std::string_view::npos)
        fail(fmt::format("an escape with fewer than {} hexadecimal digits", digits));
      value = value * 16 + static_cast<std::uint32_t>(digit);
      ++at_;
    }
    return value;
  }

  Ranges bracket() {
    const bool negated = take('^');
    Ranges out;
    while (!take(']')) {
      if (!more()) fail("a \"[\" without \"]\"");
      const Ranges first = bracket_item();
      out.insert(out.end(), first.begin(), first.end());
      if (peek() != '-' || peek(1) == ']' || peek(1) == '\0') continue;
      ++at_;
      const Ranges last = bracket_item();
      const auto single = [](const Ranges& r) { return r.size() == 1 && r[0].first == r[0].last; };
      if (!single(first) || !single(last) || first[0].first > last[0].first)
        fail("a range that does not run from a lower to a higher character");
      out.back().last = last[0].last;
    }
    return negated ? complement(std::move(out)) : out;
  }

  Ranges bracket_item() {
    if (take('\\')) {
      if (take('b')) return {{'\b', '\b'}};
      return escaped();
    }
    const std::uint32_t code = take_code_point();
    return {{code, code}};
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
};

}  // namespace

PatternNode parse_pattern(std::string_view pattern) {
  if (pattern.size() > kLongestPattern)
    throw ConfigError(fmt::format("the pattern has {} bytes; at most {} are supported",
                                  pattern.size(), kLongestPattern));
  if (find_invalid_utf8(pattern) != kValidUtf8) throw ConfigError("the pattern is not UTF-8");
  return PatternParser(pattern).parse();
}

}  // namespace minke

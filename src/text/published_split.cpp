#include "text/published_split.h"

#include "text/unicode_class.h"
#include "text/utf8.h"

namespace minke {

const std::array<std::string_view, 3> kPublishedPatterns = {
    R"re(\p{N}{1,3})re",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
};

namespace {

// What the third pattern distinguishes. It sees what the first two left: numbers are gone, and CJK
// is apart from the rest, so `Number` and `Stop` (text of the other sort, or its end) end a run.
enum class Kind { Stop, Number, LetterOrMark, Punctuation, Newline, Space, Other };

struct Next {
  Kind kind;
  std::size_t end;  // offset after the code point
};

bool is_cjk(std::uint32_t code) {
  return (code >= 0x4E00 && code <= 0x9FA5) || (code >= 0x3040 && code <= 0x30FF);
}

bool is_ascii_letter(unsigned char c) {
  return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

class Scanner {
 public:
  Scanner(std::string_view text, FunctionRef<void(std::string_view)> piece)
      : text_(text), piece_(piece) {}

  void run() {
    std::size_t at = 0;
    std::size_t unmatched = 0;  // begin of what matched nothing so far
    while (at < text_.size()) {
      if (const bool cjk = is_cjk(code_point_at(text_, at).code); cjk != cjk_) {
        if (unmatched < at) emit(unmatched, at);
        unmatched = at;
        cjk_ = cjk;
      }
      const Next first = next(at);
      const std::size_t end = match(at, first);
      if (end == at) {
        at = first.end;
        continue;
      }
      if (unmatched < at) emit(unmatched, at);
      emit(at, end);
      at = unmatched = end;
    }
    if (unmatched < at) emit(unmatched, at);
  }

 private:
  void emit(std::size_t begin, std::size_t end) { piece_(text_.substr(begin, end - begin)); }

  Next next(std::size_t at) const {
    if (at == text_.size()) return {Kind::Stop, at};
    const auto [code, bytes] = code_point_at(text_, at);
    const std::size_t end = at + bytes;
    if (is_cjk(code) != cjk_) return {Kind::Stop, at};
    if (code == '\n' || code == '\r') return {Kind::Newline, end};
    switch (unicode_class(code)) {
      case UnicodeClass::Letter:
      case UnicodeClass::Mark:
        return {Kind::LetterOrMark, end};
      case UnicodeClass::Number:
        return {Kind::Number, end};
      case UnicodeClass::Punctuation:
      case UnicodeClass::Symbol:
        return {Kind::Punctuation, end};
      case UnicodeClass::Space:
        return {Kind::Space, end};
      case UnicodeClass::Other:
        break;
    }
    return {Kind::Other, end};
  }

  std::size_t run_of(Kind kind, std::size_t at, std::size_t most = std::string_view::npos) const {
    for (Next n = next(at); n.kind == kind && most != 0; n = next(at), --most) at = n.end;
    return at;
  }

  // Offset after the match that begins at `at`, or `at` when nothing matches.
  std::size_t match(std::size_t at, Next first) const {
    switch (first.kind) {
      case Kind::Number:
        return run_of(Kind::Number, at, 3);
      case Kind::LetterOrMark:
        return run_of(Kind::LetterOrMark, first.end);
      case Kind::Punctuation:
        return punctuation(at, first.end);
      case Kind::Newline:
        return space(at);
      case Kind::Space:
      case Kind::Other:
        break;
      case Kind::Stop:
        return at;
    }
    const Kind second = next(first.end).kind;
    if (second == Kind::LetterOrMark) return run_of(Kind::LetterOrMark, first.end);
    if (second == Kind::Punctuation && text_[at] == ' ') return marks(first.end);
    return first.kind == Kind::Space ? space(at) : at;
  }

  // An ASCII sign before ASCII letters (the letters end at the first other one), else signs.
  std::size_t punctuation(std::size_t at, std::size_t second) const {
    std::size_t end = second;
    if (static_cast<unsigned char>(text_[at]) < 0x80)
      while (end < text_.size() && is_ascii_letter(static_cast<unsigned char>(text_[end]))) ++end;
    return end > second ? end : marks(at);
  }

  std::size_t marks(std::size_t at) const {
    return run_of(Kind::Newline, run_of(Kind::Punctuation, at));
  }

  // White space: up to its last line end; without one, all but the last one when something
  // follows that is not white space.
  std::size_t space(std::size_t at) const {
    std::size_t line_end = at;
    std::size_t last = at;
    std::size_t end = at;
    Next n = next(at);
    for (; n.kind == Kind::Space || n.kind == Kind::Newline; n = next(end)) {
      last = end;
      end = n.end;
      if (n.kind == Kind::Newline) line_end = end;
    }
    if (line_end > at) return line_end;
    const bool stops = n.kind == Kind::Stop || n.kind == Kind::Number;
    return stops || last == at ? end : last;
  }

  std::string_view text_;
  FunctionRef<void(std::string_view)> piece_;
  bool cjk_ = false;  // the text around is what the second pattern matched
};

}  // namespace

void split_published(std::string_view text, FunctionRef<void(std::string_view)> piece) {
  Scanner(text, piece).run();
}

}  // namespace minke

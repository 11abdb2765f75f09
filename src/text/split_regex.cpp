#include "text/split_regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace minke {
namespace {

// Steps of one match: a few for each byte, so that a pattern that looks at the text again and again
// is refused instead of waited for.
constexpr std::uint32_t kLeastSteps = 1 << 16;
constexpr std::size_t kStepsPerByte = 32;
constexpr std::uint32_t kHeapLimitKib = 256 * 1024;
constexpr std::size_t kJitStackBytes = 8u << 20;

// Outside and inside brackets; PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string with_own_spaces(std::string_view pattern) {
  std::string out;
  bool brackets = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += brackets ? std::string(kSpace) : fmt::format("[{}]", kSpace);
      } else if (escaped == 'S' && !brackets) {
        out += fmt::format("[^{}]", kSpace);
      } else {
        out += c;
        out += escaped;
      }
      continue;
    }
    if (c == '[') brackets = true;
    if (c == ']') brackets = false;
    out += c;
  }
  return out;
}

std::string pcre2_message(int code) {
  unsigned char buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

struct Span {
  std::size_t begin, end;
  bool match;
};

// Joins neighbours by the rule; the spans cover the text.
std::vector<Span> apply_behavior(const std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<Span> out;
  switch (behavior) {
    case SplitBehavior::Isolated:
      return spans;
    case SplitBehavior::Removed:
      for (const Span& s : spans)
        if (!s.match) out.push_back(s);
      return out;
    case SplitBehavior::Contiguous:
      for (const Span& s : spans) {
        if (!out.empty() && out.back().match == s.match)
          out.back().end = s.end;
        else
          out.push_back(s);
      }
      return out;
    case SplitBehavior::MergedWithPrevious: {
      bool after_match = false;
      for (const Span& s : spans) {
        if (s.match && !after_match && !out.empty())
          out.back().end = s.end;
        else
          out.push_back(s);
        after_match = s.match;
      }
      return out;
    }
    case SplitBehavior::MergedWithNext: {
      bool before_match = false;
      for (auto s = spans.rbegin(); s != spans.rend(); ++s) {
        if (s->match && !before_match && !out.empty())
          out.back().begin = s->begin;
        else
          out.push_back(*s);
        before_match = s->match;
      }
      return {out.rbegin(), out.rend()};
    }
  }
  return out;
}

}  // namespace

struct SplitRegex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

struct SplitRegex::Scratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

SplitRegex::Scratch::Scratch() : state_(std::make_unique<State>()) {
  if (!state_->data || !state_->context || !state_->stack) throw std::bad_alloc();
  pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
  pcre2_set_heap_limit(state_->context, kHeapLimitKib);
}
SplitRegex::Scratch::~Scratch() = default;

SplitRegex::SplitRegex(SplitRule rule) : rule_(std::move(rule)), code_(std::make_unique<Code>()) {
  const std::string pattern = with_own_spaces(rule_.pattern);
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &error, &offset, context.get());
  if (!code_->code)
    throw FormatError(fmt::format("split pattern '{}' does not compile: {} (at byte {})",
                                  rule_.pattern, pcre2_message(error), offset));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it matching is only slower
}

SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

void SplitRegex::split(std::string_view text, Scratch& scratch,
                       FunctionRef<void(std::string_view)> piece) const {
  pcre2_match_data* data = scratch.state_->data;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_set_match_limit(scratch.state_->context,
                        static_cast<std::uint32_t>(std::clamp<std::size_t>(
                            text.size() * kStepsPerByte, kLeastSteps, UINT32_MAX)));
  std::vector<Span> spans;
  std::size_t at = 0;   // begin of the search
  std::size_t end = 0;  // of the last match
  while (at <= text.size()) {
    int found = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data,
                            scratch.state_->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its state on the heap
      found = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data, scratch.state_->context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0)
      throw FormatError(fmt::format("split pattern '{}' gave up at byte {} of a text: {}",
                                    rule_.pattern, at, pcre2_message(found)));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
    if (bounds[1] < bounds[0])
      throw FormatError(
          fmt::format("split pattern '{}' uses \\K, which is not supported", rule_.pattern));
    if (bounds[0] > end) spans.push_back({end, bounds[0], rule_.invert});
    if (bounds[1] > bounds[0]) spans.push_back({bounds[0], bounds[1], !rule_.invert});
    end = bounds[1];
    at = end;
    if (bounds[1] == bounds[0]) {  // an empty match: go on after the next code point
      ++at;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
    }
  }
  if (end < text.size()) spans.push_back({end, text.size(), rule_.invert});
  for (const Span& s : apply_behavior(spans, rule_.behavior))
    piece(text.substr(s.begin, s.end - s.begin));
}

std::string regex_of_literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-#/ \t").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace minke

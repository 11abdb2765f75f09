// A regular expression that splits text, as the Split pre-tokenizer of tokenizer.json defines it,
// through PCRE2 with its just-in-time compiler (Unicode of that library; white space as Oniguruma
// counts it). Matching uses no recursion; its steps are limited.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "base/function_ref.h"

namespace minke {

enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

struct SplitRule {
  std::string pattern;
  SplitBehavior behavior = SplitBehavior::Isolated;
  bool invert = false;  // matches and the text between them change places
};

class SplitRegex {
 public:
  // Throws FormatError with the library's message when the pattern does not compile.
  explicit SplitRegex(SplitRule rule);
  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;
  ~SplitRegex();

  const SplitRule& rule() const { return rule_; }

  // What matching needs besides the pattern: one for each thread.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class SplitRegex;
    struct State;
    std::unique_ptr<State> state_;
  };

  // `text` must be valid UTF-8; pieces are not empty and come in order. Throws FormatError when a
  // match needs more steps than allowed.
  void split(std::string_view text, Scratch& scratch,
             FunctionRef<void(std::string_view)> piece) const;

 private:
  struct Code;
  SplitRule rule_;
  std::unique_ptr<Code> code_;
};

// The pattern that matches just this text.
std::string regex_of_literal(std::string_view text);

}  // namespace minke

// Cuts text into the pieces inside which byte pairs are merged: `pre_tokenizer` of tokenizer.json.
// Known: Split and Digits, each splitting the pieces of the one before, in a Sequence that ends in
// ByteLevel (or ByteLevel alone). The published patterns are scanned without regular expressions.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "text/split_regex.h"

namespace minke {

class PreTokenizer {
 public:
  // The value of `pre_tokenizer`. Throws FormatError naming the field and what is not implemented.
  static PreTokenizer from_json(const nlohmann::json& value);
  // DeepSeek-V3's.
  static PreTokenizer published();
  // Through regular expressions, whatever the patterns.
  static PreTokenizer from_rules(const std::vector<SplitRule>& rules);

  bool uses_scanner() const { return scanner_; }

  // `text` must be valid UTF-8; pieces are not empty and come in order.
  void split(std::string_view text, FunctionRef<void(std::string_view)> piece) const;

 private:
  void split_from(std::size_t stage, std::string_view text, SplitRegex::Scratch& scratch,
                  FunctionRef<void(std::string_view)> piece) const;

  bool scanner_ = false;
  std::vector<SplitRegex> stages_;
};

}  // namespace minke

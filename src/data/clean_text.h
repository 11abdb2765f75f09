// What is done to a document's text before it counts, and which documents are left out for it.
//
//   line ends           CR LF and CR become LF
//   control characters  U+0000 to U+001F but tab and LF, U+007F, and U+FEFF are taken out
//   size                documents of fewer or more bytes than the limits are left out
//   repeated lines      so are those whose lines, by bytes, repeat an earlier line of the same
//                       document in a larger share than the limit (Gopher's rule: Rae et al., 2021,
//                       arXiv 2112.11446, table A1); blank lines and lines of 3 bytes or fewer do
//                       not count, a closing brace repeats by its nature
//
// Text is not brought into a Unicode normal form: the tokenizer has none either.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/options.h"

namespace minke {

struct CleanOptions {
  bool line_ends = true;
  bool control_characters = true;
  std::int64_t min_document_bytes = 1;
  std::int64_t max_document_bytes = 0;
  double max_repeated_lines = 0.5;

  template <class Visitor>
  void visit(Visitor& field) {
    field("line_ends", line_ends, "CR LF and CR become LF");
    field("control_characters", control_characters, "take control characters out");
    field("min_document_bytes", min_document_bytes, "shorter documents are left out", at_least(1));
    field("max_document_bytes", max_document_bytes, "longer documents are left out; 0: none",
          at_least(0));
    field("max_repeated_lines", max_repeated_lines,
          "documents with a larger share of repeated lines are left out; 1: none", between(0, 1));
  }
};

enum class TextFault { None, TooShort, TooLong, RepeatedLines };

struct Cleaned {
  bool line_ends = false;           // some were changed
  bool control_characters = false;  // some were taken out
  TextFault fault = TextFault::None;
};

// Cleans `text`, which must be UTF-8, in place.
Cleaned clean_text(std::string& text, const CleanOptions& options);

// Share of the bytes of countable lines that repeat an earlier one; 0 when there is none.
double repeated_line_share(std::string_view text);

}  // namespace minke

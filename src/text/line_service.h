// The tokenizer as a filter: one JSON object a line in, one out, in order.
//   {"text"}                                   -> {"ids"}          nothing is added
//   {"messages", "add_generation_prompt"}      -> {"text", "ids"}  added tokens count everywhere
//   {"ids", "skip_special_tokens"}             -> {"text"}
// Both flags are false by default; other keys have no effect. A line that cannot be answered gives
// {"error"} in its place. Lines end at \n alone.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace minke {

class LineService {
 public:
  // The template is looked for in `dir` when a line first needs it, unless one is named.
  // Throws what Tokenizer::load and ChatTemplate::named throw.
  explicit LineService(const std::filesystem::path& dir,
                       const std::optional<std::string>& chat_template = std::nullopt);

  struct Answer {
    std::string line;  // without \n
    bool failed = false;
  };
  Answer answer(const std::string& request);

  // Until `in` ends; answers are flushed when no further line waits. Returns the failed lines.
  // Throws IoError when `out` takes no more.
  std::int64_t run(std::istream& in, std::ostream& out);

 private:
  const ChatTemplate& chat_template();

  std::filesystem::path dir_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
};

}  // namespace minke

// One line of a .jsonl file as a document: {"text": "...", "source": "name"}, or a dialogue,
// {"messages": [{"role", "content", "tool_calls"}], "source"}, as a chat template takes it; other
// keys are ignored.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"

namespace minke {

struct JsonDocument {
  std::string text;  // of a dialogue: as DeepSeek-V3's template writes it, for counts and hashes
  std::vector<Message> messages;  // of a dialogue
  std::optional<std::string> source;
};

struct JsonProblem {
  enum class Kind { NotJson, NoText, WrongType };
  Kind kind;
  std::string what;  // "has no field 'text'"
};

// `line` must be UTF-8. `text_field` and `source_field` name the two fields. Returns what is wrong,
// if anything.
std::optional<JsonProblem> parse_json_document(std::string_view line, const std::string& text_field,
                                               const std::string& source_field,
                                               JsonDocument& document);

}  // namespace minke

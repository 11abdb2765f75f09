// An answer of the chat, as it comes: thinking, content and tool calls told apart by token ids,
// never by text. Stop strings end the content; thinking and calls are not searched for them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/answer_text.h"
#include "serve/served_model.h"
#include "serve/tool_call_reader.h"

namespace minke {

struct AnswerDelta {
  std::string reasoning, content;
  std::vector<TextToken> tokens;  // of the content
  std::vector<ToolPiece> tools;
  bool empty() const {
    return reasoning.empty() && content.empty() && tokens.empty() && tools.empty();
  }
};

enum class ToolForm : std::uint8_t { None, Tokens, Object };

class AnswerReader {
 public:
  // `thinking`: it begins inside its thinking.
  AnswerReader(const ServedModel& model, std::vector<std::string> stops, ToolForm form,
               bool thinking);

  AnswerDelta push(ScoredToken token);
  AnswerDelta finish();
  bool stopped() const { return content_.stopped(); }
  Index n_calls() const;
  Index reasoning_tokens() const { return reasoning_tokens_; }

 private:
  bool mark(std::int32_t id, AnswerDelta& out);
  void add_content(TextPiece piece, AnswerDelta& out);

  const ServedModel& model_;
  AnswerText thoughts_, content_, call_text_;
  std::optional<ToolTokenReader> calls_;
  std::optional<ToolObjectReader> object_;
  bool thinking_, answering_ = false;
  Index reasoning_tokens_ = 0;
};

}  // namespace minke

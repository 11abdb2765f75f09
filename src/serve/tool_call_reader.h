// Tool calls in a generated text, as they come: the name in one piece, the arguments in several.
// Two forms (serve/constraint.h): by tokens,
//   <calls begin> <call begin> function <sep> NAME \n```json\n ARGUMENTS \n``` <call end> .. <calls
//   end>
// or, where the vocabulary has none, one object {"name": "NAME", "arguments": ARGUMENTS}.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "infer/request.h"
#include "serve/constraint.h"

namespace minke {

struct ToolPiece {
  Index index = 0;                  // of the call
  std::optional<std::string> name;  // in a call's first piece only
  std::string arguments;
};

class ToolTokenReader {
 public:
  explicit ToolTokenReader(const ToolTokens& tokens) : tokens_(tokens) {}
  // Whether `id` is one of the tokens, which then changed the state; whole text came before it.
  bool mark(std::int32_t id, std::vector<ToolPiece>& out);
  bool inside() const { return state_ != State::Outside; }
  void text(std::string_view text, std::vector<ToolPiece>& out);
  // The text has ended, perhaps inside a call.
  void finish(std::vector<ToolPiece>& out);
  Index n_calls() const { return n_calls_; }

 private:
  enum class State { Outside, Between, Type, Head, Arguments };
  void begin_call(std::string name, std::vector<ToolPiece>& out);
  void end_call(std::vector<ToolPiece>& out);

  const ToolTokens tokens_;
  State state_ = State::Outside;
  std::string held_;
  Index n_calls_ = 0;
};

class ToolObjectReader {
 public:
  void text(std::string_view text, std::vector<ToolPiece>& out);
  Index n_calls() const { return begun_ ? 1 : 0; }

 private:
  bool read_head(std::vector<ToolPiece>& out);

  std::string head_;  // until the arguments begin
  bool begun_ = false, ended_ = false;
  bool in_string_ = false, escaped_ = false;
  int depth_ = 0;
};

}  // namespace minke

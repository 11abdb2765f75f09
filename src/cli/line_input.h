// Lines that a user types: with editing and history on a terminal, plain from anything else.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "cli/interrupt.h"

namespace minke {

class LineInput {
 public:
  // Lines entered are kept in `history_file` (made with its folder, readable by its owner alone)
  // when it is not empty and standard input and output are a terminal.
  LineInput(const InterruptScope& interrupt, const std::filesystem::path& history_file);
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;
  ~LineInput();

  // Interrupted: Ctrl-C at an empty line. Discarded: Ctrl-C took away what was typed.
  enum class Result { Line, End, Interrupted, Discarded };
  // The next line without its line feed, in UTF-8. A prompt is shown on a terminal only.
  Result read(const std::string& prompt, std::string& line);

  bool is_terminal() const { return editor_ != nullptr; }

 private:
  struct Editor;
  const InterruptScope& interrupt_;
  std::unique_ptr<Editor> editor_;
};

// $XDG_STATE_HOME/minke/NAME, or below ~/.local/state; empty when neither is known.
std::filesystem::path state_file(const std::string& name);

}  // namespace minke

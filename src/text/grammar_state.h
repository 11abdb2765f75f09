// A recogniser that reads a text by a grammar, byte by byte: it knows at any moment which bytes may
// come next. A pushdown automaton: finite automata for strings and numbers, a stack for what is
// nested. Alternatives that begin alike are followed side by side, each as a thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "text/grammar.h"

namespace minke {

// Where a rule's text has got to, with what comes after it (`parent`). Frames are not changed once
// others refer to them, so copying a state costs a few words.
struct GrammarFrame {
  enum class Phase : std::uint8_t { Open, First, Key, Colon, Value, Next, Comma };

  RuleId rule = 0;
  Phase phase = Phase::Open;
  std::uint16_t level = 0;     // containers around, this one included
  std::uint16_t space = 0;     // of the present whitespace: see grammar_state.cpp
  std::uint32_t position = 0;  // state of a terminal, bytes of a literal or key, part of a sequence
  std::uint32_t count = 0;     // characters, items, or the property that may come next
  std::uint32_t low = 0, high = 0;  // literals or keys that begin like this; low: the one chosen
  std::shared_ptr<const GrammarFrame> parent;

  bool operator==(const GrammarFrame&) const = default;
};

class GrammarState {
 public:
  explicit GrammarState(std::shared_ptr<const Grammar> grammar);

  // Reads one more byte. False when it may not come here; the state is then of no use.
  bool step(std::uint8_t byte);
  // Reads a token. It may come when one of the threads alone can read it, which is what a mask
  // finds (TokenTrie); all of them together could give up just that one for the limits of
  // grammar.h. False, and unchanged, when it may not.
  bool read(std::string_view bytes);
  // The text may end here.
  bool complete() const;

  // A finite automaton that reads at the moment, so that a caller may run it by itself.
  struct Terminal {
    const TerminalRule* rule;
    ByteDfa::State state;
    std::uint32_t count;
  };
  std::size_t n_threads() const { return threads_.size(); }
  std::optional<Terminal> terminal(std::size_t thread) const;
  // This thread alone; and with its terminal behind it, none when nothing may follow.
  GrammarState only(std::size_t thread) const;
  std::optional<GrammarState> behind_terminal(std::size_t thread) const;

 private:
  using Frame = GrammarFrame;
  using Parent = std::shared_ptr<const GrammarFrame>;
  class Reader;

  std::shared_ptr<const Grammar> grammar_;
  std::vector<Frame> threads_;
  bool ended_ = false;  // some thread has read its whole text
};

}  // namespace minke

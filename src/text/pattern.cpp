#include "text/pattern.h"

#include <utility>

#include "base/error.h"
#include "text/pattern_syntax.h"

namespace minke {
namespace {

constexpr std::size_t kLargestNfa = 8192;  // states, repetitions written out
constexpr std::size_t kMostStates = 2048;
constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

[[noreturn]] void too_complex() {
  throw ConfigError("the pattern is too complex; use fewer or smaller repetitions");
}

// Writes a pattern as an automaton (Thompson): each part leads from a given state to the one that
// is returned. Nothing leads back to a given state, so parts can be joined without touching each
// other.
class PatternWriter {
 public:
  using State = ByteNfa::State;

  explicit PatternWriter(ByteNfa& nfa) : nfa_(nfa) {}

  State write(const PatternNode& node, State from) {
    using Kind = PatternNode::Kind;
    switch (node.kind) {
      case Kind::Characters:
        return characters(node, from);
      case Kind::Assertion:
        return step(from, node.when);
      case Kind::Sequence:
        for (const PatternNode& part : node.parts) from = write(part, from);
        return step(from);
      case Kind::Alternatives:
        return alternatives(node, from);
      case Kind::Repetition:
        return repetition(node, from);
    }
    MINKE_ASSERT(false);
    return from;
  }

 private:
  State new_state() {
    if (nfa_.size() >= kLargestNfa) too_complex();
    return nfa_.add_state();
  }

  State step(State from, ByteNfa::When when = ByteNfa::When::Always) {
    const State to = new_state();
    nfa_.add_step(from, to, when);
    return to;
  }

  State characters(const PatternNode& node, State from) {
    const State to = new_state();
    for (const CodePointRange& r : node.characters) nfa_.add_code_points(from, r.first, r.last, to);
    return to;
  }

  State alternatives(const PatternNode& node, State from) {
    const State to = new_state();
    for (const PatternNode& part : node.parts) nfa_.add_step(write(part, from), to);
    return to;
  }

  State repetition(const PatternNode& node, State from) {
    const PatternNode& part = node.parts[0];
    for (std::uint32_t i = 0; i < node.min; ++i) from = write(part, from);
    if (node.max == PatternNode::kMany) {
      const State loop = step(from);
      nfa_.add_step(write(part, loop), loop);
      return step(loop);
    }
    const State to = new_state();
    for (std::uint32_t i = node.min; i < node.max; ++i) {
      nfa_.add_step(from, to);
      from = write(part, from);
    }
    nfa_.add_step(from, to);
    return to;
  }

  ByteNfa& nfa_;
};

}  // namespace

ByteDfa compile_pattern(std::string_view pattern, std::size_t& work) {
  const PatternNode tree = parse_pattern(pattern);
  ByteNfa nfa;
  const ByteNfa::State start = nfa.add_state(), end = nfa.add_state(), begin = nfa.add_state();
  nfa.add_step(start, begin);
  nfa.add_code_points(start, 0, kLastCodePoint, start);  // found somewhere: what stands before,
  nfa.add_code_points(end, 0, kLastCodePoint, end);      // and behind
  nfa.add_step(PatternWriter(nfa).write(tree, begin), end);
  std::optional<ByteDfa> dfa = nfa.determinise(start, end, kMostStates, work);
  if (!dfa) too_complex();
  return *std::move(dfa);
}

}  // namespace minke

// Finite automata over bytes: what constrained decoding asks of the parts of a text that have no
// nesting (strings, numbers, patterns).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace minke {

// A deterministic automaton without dead ends: from every state some text leads to the end, so a
// generator that only takes existing transitions can always finish. State 0 is the start.
struct ByteDfa {
  using State = std::uint16_t;
  static constexpr State kNone = 0xFFFF;

  std::vector<std::array<State, 256>> next;
  std::vector<bool> accepts;
  std::vector<bool> final;  // accepts, and nothing can follow

  std::size_t size() const { return next.size(); }
  // No text at all is accepted.
  bool empty() const { return next.empty(); }
  State add_state(bool accepting);
  // Removes states from which no end can be reached (all of them if the start is one) and fills in
  // `final`. To be called once, when all transitions are there.
  void trim();
};

// A nondeterministic one, to be built piece by piece.
class ByteNfa {
 public:
  using State = std::uint32_t;
  enum class When : std::uint8_t { Always, AtBegin, AtEnd };  // where a step without a byte may be

  State add_state();
  void add_bytes(State from, std::uint8_t first, std::uint8_t last, State to);
  // The UTF-8 forms of the code points first..last; surrogates among them are left out.
  void add_code_points(State from, std::uint32_t first, std::uint32_t last, State to);
  void add_step(State from, State to, When when = When::Always);
  std::size_t size() const { return nodes_.size(); }

  // The trimmed automaton of all texts that lead from `start` to `end`; none where it would have
  // more states, or take more work (edges followed: some 5 ns each), which is counted down.
  std::optional<ByteDfa> determinise(State start, State end, std::size_t most_states,
                                     std::size_t& work) const;

 private:
  struct Edge {
    std::uint8_t first, last;
    State to;
  };
  struct Step {
    State to;
    When when;
  };
  struct Node {
    std::vector<Edge> edges;
    std::vector<Step> steps;
  };
  using Set = std::vector<State>;  // sorted
  void add_utf8_range(State from, std::uint32_t first, std::uint32_t last, State to);
  Set closure(Set seeds, bool at_begin, bool at_end, std::size_t& work) const;
  std::vector<int> interval_begins(const Set& set) const;
  Set targets(const Set& set, int byte, std::size_t& work) const;

  std::vector<Node> nodes_;
};

}  // namespace minke

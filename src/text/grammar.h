// Grammars of JSON texts, as rules that refer to each other. GrammarState (grammar_state.h) reads a
// text by them.
//
// They accept a part of JSON that every reader takes and that a generator cannot stretch for ever:
// between tokens nothing, one space, or a line break with at most 4 spaces or a tab for each level;
// at most 64 levels. There is no dead end: what has been accepted can always be completed.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "text/byte_automaton.h"

namespace minke {

using RuleId = std::uint32_t;

inline constexpr std::uint32_t kDeepestNesting = 64;
inline constexpr std::uint32_t kNeverFits = 1 << 20;  // of Rule::levels: no text is finite
inline constexpr std::uint32_t kUnbounded = ~std::uint32_t{0};
// Alternatives that are followed at once, and of them those inside a string or a number, which cost
// the most to look at. Beyond, the last ones are given up: the text stays one of the grammar, some
// others become impossible.
inline constexpr std::size_t kMostThreads = 64, kMostTerminals = 8;

// A text that an automaton accepts. With `inside` set it counts how often a character begins there
// (StringDfa) and keeps that within min..max.
struct TerminalRule {
  std::shared_ptr<const ByteDfa> dfa;
  std::optional<ByteDfa::State> inside;
  std::uint32_t min = 0, max = kUnbounded;
};

// One of the texts (sorted, each once), then, where `next` has an entry for each, that rule.
struct LiteralsRule {
  std::vector<std::string> texts;
  std::vector<RuleId> next;
};

// Properties come in this order; those not required may be left out. Others, if any, come last.
struct ObjectRule {
  struct Property {
    RuleId value;
    bool required;
  };
  struct Others {
    RuleId key, value;  // keys that are none of the names
  };
  std::vector<Property> properties;
  std::vector<std::string> keys;            // sorted, with quotes
  std::vector<std::uint32_t> key_property;  // the property that keys[i] names
  std::optional<Others> others;
  // next_required[i]: the first required property from i on, or properties.size().
  std::vector<std::uint32_t> next_required;
};

struct ArrayRule {
  std::vector<RuleId> first;    // of the first items
  std::optional<RuleId> items;  // of the others; none: there are no others
  std::uint32_t min = 0, max = kUnbounded;
};

struct AnyOfRule {
  std::vector<RuleId> parts;  // none: nothing matches
};

struct SequenceRule {
  std::vector<RuleId> parts;  // one after the other; at least one
};

struct Rule {
  std::variant<TerminalRule, LiteralsRule, ObjectRule, ArrayRule, AnyOfRule, SequenceRule> body;
  std::uint32_t levels = kNeverFits;  // of nesting that the flattest text of it has
};

class Grammar {
 public:
  RuleId add(Rule rule);
  // For rules that refer to themselves: a place first, its body later.
  RuleId reserve() { return add({AnyOfRule{}}); }
  void set(RuleId id, Rule rule);

  // Rules that every JSON grammar may need; the same ones at each call.
  RuleId any_string();
  RuleId any_value();
  RuleId any_object();
  RuleId literal(std::string text) { return add({LiteralsRule{{std::move(text)}, {}}}); }

  // Ends the construction. `outer_levels`: those around the text. Throws ConfigError when no text
  // with at most 64 levels matches `root`, when a rule is its own alternative, or when there are
  // more alternatives at one place than are followed.
  void finish(RuleId root, std::uint32_t outer_levels = 0);

  const Rule& rule(RuleId id) const { return rules_[id]; }
  RuleId root() const { return root_; }
  std::uint32_t outer_levels() const { return outer_levels_; }
  bool fits(RuleId id, std::uint32_t level) const {
    return level + rules_[id].levels <= kDeepestNesting;
  }

 private:
  std::uint32_t levels_of(const Rule& rule) const;
  std::vector<RuleId> reachable() const;
  void check_alternatives() const;

  std::vector<Rule> rules_;
  RuleId root_ = 0;
  std::uint32_t outer_levels_ = 0;
  std::optional<RuleId> any_string_, any_value_, any_object_;
};

// Any JSON object.
std::shared_ptr<const Grammar> json_object_grammar();

}  // namespace minke

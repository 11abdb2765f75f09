// Which tokens may come next, for a grammar that reads bytes: a tree of the byte strings of all
// tokens, walked beside the grammar's state. What the state refuses at a byte is refused for all
// tokens that begin like this, so few of them are looked at; inside free strings, where almost all
// are allowed, the answer is mostly known beforehand.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar_state.h"
#include "text/tokenizer.h"

namespace minke {

class TokenSet {
 public:
  explicit TokenSet(std::int32_t n_tokens)
      : n_tokens_(n_tokens), words_((static_cast<std::size_t>(n_tokens) + 63) / 64) {}
  // Ids outside of 0..n_tokens-1 are in no set.
  void add(std::int32_t id);
  void remove(std::int32_t id);
  bool contains(std::int32_t id) const;
  void add_all(const TokenSet& other);  // those that are in the range of both
  // Minus infinity for every logit [V] whose token is not in the set.
  void mask(std::span<float> logits) const;

 private:
  std::int32_t n_tokens_;
  std::vector<std::uint64_t> words_;
};

// Of all tokens with bytes but the added ones: those have a meaning of their own, whatever they are
// spelled like. Does not change after it is built: any number of threads may use it.
class TokenTrie {
 public:
  explicit TokenTrie(const Tokenizer& tokenizer);

  std::int32_t n_tokens() const { return static_cast<std::int32_t>(begins_.size()) - 1; }
  // Of a token in the tree; empty for others and for ids that name no token.
  std::string_view bytes(std::int32_t id) const;
  // Adds the tokens that `state` can read to the end.
  void add_readable(const GrammarState& state, TokenSet& out) const;

 private:
  // In depth-first order: the nodes of a subtree are i .. end-1.
  struct Node {
    std::uint8_t byte;
    std::uint16_t n_tokens;  // that end here: tokens_[first_token ..]
    std::uint32_t first_token;
    std::uint32_t end;
  };
  struct Nodes {  // siblings and what is below them
    std::uint32_t begin, end;
  };
  // Where a token that began inside a free string ends that string.
  struct StringEnd {
    std::uint32_t node;
    std::uint32_t characters;
  };
  class TerminalWalk;

  void add_tokens(std::vector<std::pair<std::string_view, std::int32_t>> sorted);
  void index_free_strings();
  void add_ending(std::uint32_t node, TokenSet& out) const;
  void walk(Nodes nodes, const GrammarState& state, TokenSet& out) const;
  void add_in_string(const GrammarState::Terminal& terminal,
                     const std::optional<GrammarState>& behind, TokenSet& out) const;

  std::string text_;                   // the bytes of all tokens, by id
  std::vector<std::uint32_t> begins_;  // of each id in text_, and the end
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_;
  TokenSet inside_string_;                 // stay in a free string that they began in
  std::vector<std::uint32_t> characters_;  // of these, by id
  std::vector<StringEnd> string_ends_;
};

}  // namespace minke

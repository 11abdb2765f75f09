#include "text/token_trie.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>

#include "text/json_terminals.h"

namespace minke {

void TokenSet::add(std::int32_t id) {
  if (id < 0 || id >= n_tokens_) return;
  words_[static_cast<std::size_t>(id) / 64] |= std::uint64_t{1} << (id % 64);
}

void TokenSet::remove(std::int32_t id) {
  if (id < 0 || id >= n_tokens_) return;
  words_[static_cast<std::size_t>(id) / 64] &= ~(std::uint64_t{1} << (id % 64));
}

bool TokenSet::contains(std::int32_t id) const {
  return id >= 0 && id < n_tokens_ && (words_[static_cast<std::size_t>(id) / 64] >> (id % 64) & 1);
}

void TokenSet::add_all(const TokenSet& other) {
  const std::size_t both = std::min(words_.size(), other.words_.size());
  for (std::size_t i = 0; i < both; ++i) words_[i] |= other.words_[i];
}

void TokenSet::mask(std::span<float> logits) const {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::size_t known = std::min(logits.size(), static_cast<std::size_t>(n_tokens_));
  for (std::size_t i = 0; i < known; ++i)
    if (!(words_[i / 64] >> (i % 64) & 1)) logits[i] = kNever;
  std::fill(logits.begin() + static_cast<std::ptrdiff_t>(known), logits.end(), kNever);
}

TokenTrie::TokenTrie(const Tokenizer& tokenizer) : inside_string_(tokenizer.vocab_size()) {
  std::unordered_set<std::int32_t> added;
  for (const AddedToken& token : tokenizer.added_tokens()) added.insert(token.id);
  begins_.push_back(0);
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!added.contains(id) && !tokenizer.is_special(id)) text_ += tokenizer.token_bytes(id);
    begins_.push_back(static_cast<std::uint32_t>(text_.size()));
  }
  std::vector<std::pair<std::string_view, std::int32_t>> sorted;
  for (std::int32_t id = 0; id < n_tokens(); ++id)
    if (!bytes(id).empty()) sorted.emplace_back(bytes(id), id);
  std::sort(sorted.begin(), sorted.end());
  add_tokens(std::move(sorted));
  index_free_strings();
}

std::string_view TokenTrie::bytes(std::int32_t id) const {
  if (id < 0 || id >= n_tokens()) return {};
  const auto i = static_cast<std::size_t>(id);
  return std::string_view(text_).substr(begins_[i], begins_[i + 1] - begins_[i]);
}

// Each token shares the path of the one before it as far as their bytes are the same.
void TokenTrie::add_tokens(std::vector<std::pair<std::string_view, std::int32_t>> sorted) {
  std::vector<std::uint32_t> path;  // nodes
  std::string_view before;
  const auto close_to = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[path.back()].end = static_cast<std::uint32_t>(nodes_.size());
  };
  for (const auto& [text, id] : sorted) {
    const std::size_t limit = std::min(before.size(), text.size());
    std::size_t same = 0;
    while (same < limit && before[same] == text[same]) ++same;
    close_to(same);
    for (std::size_t i = same; i < text.size(); ++i) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<std::uint8_t>(text[i]),
                        .n_tokens = 0,
                        .first_token = static_cast<std::uint32_t>(tokens_.size()),
                        .end = 0});
    }
    ++nodes_[path.back()].n_tokens;
    tokens_.push_back(id);
    before = text;
  }
  close_to(0);
}

void TokenTrie::add_ending(std::uint32_t node, TokenSet& out) const {
  const Node& n = nodes_[node];
  for (std::uint32_t i = 0; i < n.n_tokens; ++i) out.add(tokens_[n.first_token + i]);
}

void TokenTrie::walk(Nodes nodes, const GrammarState& state, TokenSet& out) const {
  struct Level {
    std::uint32_t end;
    GrammarState state;
  };
  std::vector<Level> levels;
  for (std::uint32_t i = nodes.begin; i < nodes.end;) {
    while (!levels.empty() && levels.back().end <= i) levels.pop_back();
    GrammarState next = levels.empty() ? state : levels.back().state;
    const Node& node = nodes_[i];
    if (!next.step(node.byte)) {
      i = node.end;
      continue;
    }
    add_ending(i, out);
    if (node.end > i + 1) levels.push_back({node.end, std::move(next)});
    ++i;
  }
}

// Runs a finite automaton over the tree by itself, without the grammar's stack. Where its text has
// ended, `ended(nodes, state, characters)` is told which nodes come behind it.
class TokenTrie::TerminalWalk {
 public:
  TerminalWalk(const TokenTrie& trie, const GrammarState::Terminal& terminal)
      : trie_(trie), rule_(*terminal.rule), begin_{kEverything, terminal.state, terminal.count} {}

  // inside(node, characters), closed(node, characters): the text goes on or is over behind the
  // node; passed(node): it was over before it.
  template <class Inside, class Closed, class Passed>
  void run(const Inside& inside, const Closed& closed, const Passed& passed) const {
    std::vector<Level> levels = {begin_};
    const ByteDfa& dfa = *rule_.dfa;
    const auto size = static_cast<std::uint32_t>(trie_.nodes_.size());
    for (std::uint32_t i = 0; i < size;) {
      while (levels.back().end <= i) levels.pop_back();
      const Level at = levels.back();
      const Node& node = trie_.nodes_[i];
      const ByteDfa::State next = dfa.next[at.state][node.byte];
      const bool counts = rule_.inside == at.state;
      if (next == ByteDfa::kNone) {
        if (dfa.accepts[at.state]) passed(i);
        i = node.end;
      } else if (dfa.final[next]) {
        if (!counts || (at.count >= rule_.min && at.count <= rule_.max)) closed(i, at.count);
        i = node.end;
      } else if (counts && at.count >= rule_.max) {
        i = node.end;
      } else {
        const std::uint32_t count = at.count + (counts ? 1 : 0);
        inside(i, count);
        if (node.end > ++i) levels.push_back({node.end, next, count});
      }
    }
  }

 private:
  struct Level {
    std::uint32_t end;
    ByteDfa::State state;
    std::uint32_t count;
  };
  static constexpr std::uint32_t kEverything = ~std::uint32_t{0};

  const TokenTrie& trie_;
  const TerminalRule& rule_;
  Level begin_;
};

void TokenTrie::index_free_strings() {
  const StringDfa& string = any_string();
  const TerminalRule rule{.dfa = {std::shared_ptr<void>(), &string.dfa}, .inside = string.inside};
  characters_.resize(static_cast<std::size_t>(n_tokens()));
  TerminalWalk(*this, {&rule, string.inside, 0})
      .run(
          [&](std::uint32_t node, std::uint32_t characters) {
            add_ending(node, inside_string_);
            for (std::uint32_t t = 0; t < nodes_[node].n_tokens; ++t)
              characters_[static_cast<std::size_t>(tokens_[nodes_[node].first_token + t])] =
                  characters;
          },
          [&](std::uint32_t node, std::uint32_t characters) {
            string_ends_.push_back({node, characters});
          },
          [](std::uint32_t) {});
}

void TokenTrie::add_in_string(const GrammarState::Terminal& terminal,
                              const std::optional<GrammarState>& behind, TokenSet& out) const {
  const TerminalRule& rule = *terminal.rule;
  if (rule.max == kUnbounded) {
    out.add_all(inside_string_);
  } else {
    const std::uint32_t most = rule.max - terminal.count;
    for (std::int32_t id = 0; id < n_tokens(); ++id)
      if (characters_[static_cast<std::size_t>(id)] <= most && inside_string_.contains(id))
        out.add(id);
  }
  for (const StringEnd& end : string_ends_) {
    const std::uint64_t length = std::uint64_t{terminal.count} + end.characters;
    if (length < rule.min || length > rule.max) continue;
    add_ending(end.node, out);
    if (behind) walk({end.node + 1, nodes_[end.node].end}, *behind, out);
  }
}

void TokenTrie::add_readable(const GrammarState& state, TokenSet& out) const {
  for (std::size_t thread = 0; thread < state.n_threads(); ++thread) {
    const auto terminal = state.terminal(thread);
    if (!terminal) {
      walk({0, static_cast<std::uint32_t>(nodes_.size())}, state.only(thread), out);
      continue;
    }
    const std::optional<GrammarState> behind = state.behind_terminal(thread);
    const StringDfa& free = any_string();
    if (terminal->rule->dfa.get() == &free.dfa && terminal->state == free.inside) {
      add_in_string(*terminal, behind, out);
      continue;
    }
    TerminalWalk(*this, *terminal)
        .run([&](std::uint32_t node, std::uint32_t) { add_ending(node, out); },
             [&](std::uint32_t node, std::uint32_t) {
               add_ending(node, out);
               if (behind) walk({node + 1, nodes_[node].end}, *behind, out);
             },
             [&](std::uint32_t node) {
               if (behind) walk({node, nodes_[node].end}, *behind, out);
             });
  }
}

}  // namespace minke

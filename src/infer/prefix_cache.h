// Rows of prompts that were computed before, found again by their tokens.
//
// The unit is a block: kKeyTile tokens of a prompt whose rows, made by the prefill form, fill a
// page. A block hangs on the one before it, so that the same tokens after another beginning are
// another block. It is found by a hash chained from block to block, and then its tokens are
// compared: a collision costs time, never a wrong row.
//
// Rows of the main model depend on the tokens up to their own position, so a match is what a fresh
// run would compute, bit for bit. A row of the MTP module also depends on the next token: the last
// of a block's 64 was made with the token that followed in the first prompt, and another prompt may
// go on differently. That row then makes drafts a little worse, never a token wrong: drafts are
// checked.
//
// A prompt that was computed whole has an end besides, if it has a block: what follows its last
// whole block that leaves a token, 1 to 64 tokens, and the model's state after the last one. The
// same prompt again then needs its logits alone. The sequence that computed it writes on in the
// page, behind the prompt's rows, so another one copies it. (It may begin the MTP module's rows
// anew there; drafts of later ones are then a little worse, as above.)
//
// Blocks and ends are dropped when their pages are needed: those without users, from the ends of
// chains, the longest unused first. One thread at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>

#include "infer/latent_pages.h"

namespace minke {

// Whole blocks that begin both prompts and leave at least the last token of the second.
Index shared_blocks(std::span<const std::int32_t> a, std::span<const std::int32_t> b);

using PromptState = std::shared_ptr<const Tensor>;  // [1, D], after the final norm

class PrefixCache {
 public:
  // The pool must outlive it; several caches may share it, a page is kept by one of them.
  explicit PrefixCache(PagePool& pool) : pool_(pool) {}
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct End {
    PageId page;  // with the rows of the prompt's last tokens, all of them
    PromptState state;
    bool module_rows;  // but the last, which depends on the token after the prompt
  };
  struct Match {
    std::vector<PageId> pages;
    bool module_rows = true;  // all of them hold rows of the MTP module
    std::optional<End> end;   // the whole prompt was computed before
  };
  // The longest chain that begins the prompt and leaves at least its last token, and the end. The
  // pages have no new user yet: adopt them before the next insert or make_room.
  Match find(std::span<const std::int32_t> prompt);

  // Remembers the whole blocks of `prompt`, whose rows are in `pages` (a page a block, each with a
  // user). Blocks that are known already stay as they are.
  void insert(std::span<const std::int32_t> prompt, std::span<const PageId> pages,
              bool module_rows);

  // Remembers the end of `prompt`, whose blocks are there (else it is not remembered).
  void insert_end(std::span<const std::int32_t> prompt, End end);

  // Every block, with the tokens from the beginning of its prompt; no ends.
  struct Entry {
    std::vector<std::int32_t> prefix;
    PageId page;
    bool module_rows;
  };
  std::vector<Entry> entries() const;
  // Adds the last block of `prefix` (whole blocks) when all before it are there and it is not.
  bool add_last(std::span<const std::int32_t> prefix, PageId page, bool module_rows);

  // Drops blocks until `n` pages of the pool are free or nothing is left that would free one.
  void make_room(Index n);
  void clear();
  Index n_blocks() const { return static_cast<Index>(blocks_.size()); }  // and ends

 private:
  using Tokens = std::span<const std::int32_t>;
  struct Block {
    Block* parent;  // none: the first of a prompt
    std::uint64_t hash;
    std::vector<std::int32_t> tokens;  // kKeyTile of a block
    PageId page;
    bool module_rows;
    PromptState state;  // of an end; none: a block
    Index n_children = 0;
    std::uint64_t used_at = 0;
  };
  struct LongestUnusedFirst {
    bool operator()(const Block* a, const Block* b) const { return a->used_at < b->used_at; }
  };

  enum class Kind : std::uint8_t { Block, End };
  Block* child(const Block* parent, Tokens tokens, Kind kind = Kind::Block) const;
  // The last of the first n blocks of `prompt`; none when one is missing, or n is 0.
  Block* last_of(Tokens prompt, std::size_t n) const;
  Block* add(Block* parent, Tokens tokens, End content);
  void touch(Block* block);
  void remove(Block* block);

  PagePool& pool_;
  std::unordered_multimap<std::uint64_t, std::unique_ptr<Block>> blocks_;
  std::set<Block*, LongestUnusedFirst> leaves_;
  std::uint64_t clock_ = 0;
};

}  // namespace minke

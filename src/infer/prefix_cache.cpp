#include "infer/prefix_cache.h"

#include <algorithm>

#include "base/hash.h"
#include "base/random.h"

namespace minke {
namespace {

std::uint64_t chained_hash(std::uint64_t parent, std::span<const std::int32_t> tokens) {
  return mix_bits(parent ^ hash64(std::as_bytes(tokens)));
}

// Whole blocks of a prompt that leave at least its last token.
std::size_t n_whole(std::span<const std::int32_t> prompt) {
  return prompt.empty() ? 0 : (prompt.size() - 1) / static_cast<std::size_t>(kKeyTile);
}

std::span<const std::int32_t> block_of(std::span<const std::int32_t> prompt, std::size_t i) {
  constexpr auto size = static_cast<std::size_t>(kKeyTile);
  return prompt.subspan(i * size, size);
}

}  // namespace

Index shared_blocks(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  if (b.empty()) return 0;
  const auto [differs, unused] = std::mismatch(a.begin(), a.end(), b.begin(), b.end() - 1);
  return static_cast<Index>(differs - a.begin()) / kKeyTile;
}

PrefixCache::~PrefixCache() {
  clear();
}

PrefixCache::Block* PrefixCache::child(const Block* parent, Tokens tokens, Kind kind) const {
  const auto [first, last] = blocks_.equal_range(chained_hash(parent ? parent->hash : 0, tokens));
  for (auto it = first; it != last; ++it) {
    Block* block = it->second.get();
    if (block->parent == parent && (kind == Kind::End) == (block->state != nullptr) &&
        std::ranges::equal(tokens, block->tokens))
      return block;
  }
  return nullptr;
}

PrefixCache::Block* PrefixCache::last_of(Tokens prompt, std::size_t n) const {
  Block* block = nullptr;
  for (std::size_t i = 0; i < n; ++i) {
    block = child(block, block_of(prompt, i));
    if (!block) break;
  }
  return block;
}

// Leaves are ordered by their time: it may change only outside the set. Times are all different.
void PrefixCache::touch(Block* block) {
  const bool leaf = leaves_.erase(block) > 0;
  block->used_at = ++clock_;
  if (leaf) leaves_.insert(block);
}

PrefixCache::Match PrefixCache::find(Tokens prompt) {
  Match match;
  const std::size_t most = n_whole(prompt);
  Block* block = nullptr;
  for (std::size_t i = 0; i < most; ++i) {
    block = child(block, block_of(prompt, i));
    if (!block) return match;
    touch(block);
    match.pages.push_back(block->page);
    match.module_rows = match.module_rows && block->module_rows;
  }
  if (!block) return match;
  if (Block* end = child(block, prompt.subspan(most * kKeyTile), Kind::End)) {
    touch(end);
    match.end = End{end->page, end->state, end->module_rows};
  }
  return match;
}

PrefixCache::Block* PrefixCache::add(Block* parent, Tokens tokens, End content) {
  auto block = std::make_unique<Block>();
  block->parent = parent;
  block->hash = chained_hash(parent ? parent->hash : 0, tokens);
  block->tokens.assign(tokens.begin(), tokens.end());
  block->page = content.page;
  block->module_rows = content.module_rows;
  block->state = std::move(content.state);
  block->used_at = ++clock_;
  pool_.keep(block->page);
  if (parent && parent->n_children++ == 0) leaves_.erase(parent);
  Block* added = block.get();
  leaves_.insert(added);
  blocks_.emplace(added->hash, std::move(block));
  return added;
}

void PrefixCache::insert(Tokens prompt, std::span<const PageId> pages, bool module_rows) {
  const std::size_t n = prompt.size() / static_cast<std::size_t>(kKeyTile);
  Block* parent = nullptr;
  for (std::size_t i = 0; i < std::min(n, pages.size()); ++i) {
    const Tokens tokens = block_of(prompt, i);
    Block* block = child(parent, tokens);
    parent = block ? block : add(parent, tokens, {pages[i], nullptr, module_rows});
  }
}

void PrefixCache::insert_end(Tokens prompt, End end) {
  MINKE_ASSERT(end.state != nullptr);
  const std::size_t n = n_whole(prompt);
  Block* parent = last_of(prompt, n);
  const Tokens rest = prompt.subspan(n * kKeyTile);
  if (parent && !child(parent, rest, Kind::End)) add(parent, rest, std::move(end));
}

std::vector<PrefixCache::Entry> PrefixCache::entries() const {
  std::vector<Entry> all;
  for (const auto& [hash, block] : blocks_) {
    if (block->state) continue;
    std::vector<const Block*> chain;
    for (const Block* b = block.get(); b; b = b->parent) chain.push_back(b);
    Entry entry{{}, block->page, block->module_rows};
    for (auto b = chain.rbegin(); b != chain.rend(); ++b)
      entry.prefix.insert(entry.prefix.end(), (*b)->tokens.begin(), (*b)->tokens.end());
    all.push_back(std::move(entry));
  }
  return all;
}

bool PrefixCache::add_last(Tokens prefix, PageId page, bool module_rows) {
  const std::size_t last = prefix.size() / static_cast<std::size_t>(kKeyTile) - 1;
  Block* parent = last_of(prefix, last);
  if ((last > 0 && !parent) || child(parent, block_of(prefix, last))) return false;
  add(parent, block_of(prefix, last), {page, nullptr, module_rows});
  return true;
}

void PrefixCache::remove(Block* block) {
  leaves_.erase(block);
  pool_.unkeep(block->page);
  if (block->parent && --block->parent->n_children == 0) leaves_.insert(block->parent);
  const auto [first, last] = blocks_.equal_range(block->hash);
  blocks_.erase(
      std::find_if(first, last, [&](const auto& entry) { return entry.second.get() == block; }));
}

// A leaf in use may hide blocks without users above it (its sequence computed the same beginning in
// pages of its own): it goes when nothing else does.
void PrefixCache::make_room(Index n) {
  while (pool_.n_free() < n && pool_.n_kept() > 0 && !leaves_.empty()) {
    const auto unused = std::find_if(leaves_.begin(), leaves_.end(),
                                     [&](Block* leaf) { return pool_.users(leaf->page) == 0; });
    remove(unused != leaves_.end() ? *unused : *leaves_.begin());
  }
}

void PrefixCache::clear() {
  for (const auto& [hash, block] : blocks_) pool_.unkeep(block->page);
  leaves_.clear();
  blocks_.clear();
}

}  // namespace minke

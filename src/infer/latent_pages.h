// The latent cache of many sequences in one pool of pages.
//
// A page holds kKeyTile positions of every layer, the MTP module's included, so that one page table
// serves a sequence; rows of layers on other ranks are in pages there, by its number. Pages are
// shared by counting: a sequence that uses one is its user, and the prefix cache may keep it
// besides. A page without users that is not kept is free. Pages are used again and again, never
// returned to the system: memory stays flat, and a page becomes real memory when it is first
// written.
//
// One thread at a time.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "model/latent_cache.h"
#include "tensor/reserved_memory.h"

namespace minke {

// No page is free. Whoever plans the work makes room first; a cache that asks for more throws this
// and keeps what it had.
struct PagesExhausted : Error {
  using Error::Error;
};

struct PageLayout {
  LatentRow row;
  Index n_layers;   // L, and one more where a module's rows are kept
  Index first = 0;  // of them, layers that other ranks keep (model/layer_ranks.h)
  // A page has an address even where no layer is held.
  Index n_held() const { return std::max<Index>(1, n_layers - first); }
  std::size_t layer_bytes() const { return static_cast<std::size_t>(kKeyTile) * row.bytes(); }
  std::size_t bytes() const { return static_cast<std::size_t>(n_held()) * layer_bytes(); }
};

inline Index pages_for(Index n_positions) {
  return (n_positions + kKeyTile - 1) / kKeyTile;
}

using PageId = std::int32_t;

class PagePool {
 public:
  // Reserves addresses, not memory. ConfigError without a page; IoError when the system refuses.
  PagePool(const PageLayout& layout, Index n_pages, LayerRanks* ranks = nullptr);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  const PageLayout& layout() const { return layout_; }
  Index n_pages() const { return static_cast<Index>(pages_.size()); }
  Index n_free() const { return static_cast<Index>(free_.size()); }
  Index n_used() const { return n_used_; }                         // with a user
  Index n_kept() const { return n_pages() - n_free() - n_used_; }  // by the prefix cache alone

  // Writes to free pages, those first that are taken first, so that up to `bytes` of them are
  // memory.
  void touch(std::size_t bytes);

  PageId take();           // a free page, with one user; what it holds is finite. PagesExhausted
  void use(PageId page);   // one more user
  void drop(PageId page);  // one user less
  Index users(PageId page) const { return at(page).users; }
  void keep(PageId page);  // by the prefix cache: once for each that remembers it
  void unkeep(PageId page);

  // What is in a page, in all layers wherever they are, to another one.
  void copy(PageId from, PageId to);
  // By which other ranks know a page; 0 where all layers are here.
  PageNumber number(PageId page) const {
    return numbers_.all().empty() ? 0 : numbers_.all()[static_cast<std::size_t>(page)];
  }
  bool has_numbers() const { return !numbers_.all().empty(); }

  // The kKeyTile rows of a layer held here in a page.
  void* rows(PageId page, Index layer) const;
  // All bytes of a page.
  std::span<std::byte> bytes(PageId page) const;

 private:
  struct Page {
    Index users = 0;
    Index kept = 0;
  };
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }

  PageLayout layout_;
  std::size_t stride_;
  ReservedMemory memory_;
  PageNumbers numbers_;
  std::vector<Page> pages_;
  std::vector<PageId> free_;  // the last freed is taken first: it is likely in a processor's cache
  Index n_used_ = 0;
};

// Rows of one sequence. The pool must outlive it.
class PagedCache final : public LatentCache {
 public:
  explicit PagedCache(PagePool& pool);
  ~PagedCache() override { clear(); }
  PagedCache(PagedCache&& other) noexcept;
  PagedCache& operator=(PagedCache&& other) noexcept;

  const LatentRow& row() const override { return pool_->layout().row; }
  Index length(Index layer) const override { return of(layer).length; }
  // Throws PagesExhausted.
  void reserve(Index n) override;
  // Up to n positions take no memory but pages from now on, also after clear().
  void expect(Index n);
  void append(Index layer, View2<const float> rows) override;
  std::span<const void* const> pages(Index layer) const override {
    return std::span(of(layer).pages).subspan(static_cast<std::size_t>(of(layer).first_page));
  }
  // Pages stay: the next tokens need them.
  void truncate(Index n) override;
  void count_rows(Index layer, Index n) override;
  std::span<const PageNumber> page_numbers() const override { return numbers_; }

  // Forgets all rows of a layer; the next one is that of `position`, and the layer's first. It goes
  // to the page of `position`, which must be there and have no other user.
  void restart(Index layer, Index position);
  // Where a layer was restarted, else 0; and the position after its last row.
  Index origin(Index layer) const { return of(layer).origin; }
  Index end(Index layer) const { return of(layer).origin + of(layer).length; }

  // Begins an empty cache with whole pages of other sequences, as their user. They are only read:
  // every later append is to a page of its own.
  void adopt(std::span<const PageId> full_pages);
  // After adopt: a copy of a page that others write on in, as the next one. Every layer then has n
  // rows, which must end in that page. Throws PagesExhausted.
  void adopt_copy(PageId page, Index n);
  // A cache with the first n positions: whole pages are shared, the last one is copied when it is
  // not whole. Layers with fewer rows keep those they have, restarted ones none. Throws
  // PagesExhausted.
  PagedCache fork(Index n) const;
  // Gives all pages back.
  void clear();

  std::span<const PageId> table() const { return table_; }
  Index n_own() const;  // pages that no other sequence uses

 private:
  struct Layer {
    std::vector<const void*> pages;
    Index length = 0;
    Index origin = 0, first_page = 0;  // of its first row
  };
  const Layer& of(Index layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  Layer& of(Index layer) { return layers_[static_cast<std::size_t>(layer)]; }
  void add_page(PageId page);

  PagePool* pool_;
  std::vector<PageId> table_;
  std::vector<PageNumber> numbers_;  // of the table's pages
  std::vector<Layer> layers_;
};

}  // namespace minke

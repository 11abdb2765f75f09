#include "infer/latent_pages.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ops/permute.h"

namespace minke {
namespace {

constexpr std::size_t kCacheLine = 64;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

std::byte* map_memory(std::size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw_io_error(fmt::format("cannot reserve {} bytes for the latent cache", bytes), errno);
  madvise(p, bytes, MADV_HUGEPAGE);  // a wish: without it the cache is slower, not wrong
  return static_cast<std::byte*>(p);
}

}  // namespace

PagePool::PagePool(const PageLayout& layout, Index n_pages)
    : layout_(layout), stride_(aligned(layout.bytes())) {
  if (n_pages < 1) throw ConfigError("the latent cache has no page; give it more bytes");
  mapped_bytes_ = stride_ * static_cast<std::size_t>(n_pages);
  memory_ = map_memory(mapped_bytes_);
  pages_.resize(static_cast<std::size_t>(n_pages));
  for (Index i = n_pages; i-- > 0;) free_.push_back(static_cast<PageId>(i));
}

PagePool::~PagePool() {
  munmap(memory_, mapped_bytes_);
}

PageId PagePool::take() {
  if (free_.empty())
    throw PagesExhausted(fmt::format("all {} pages of the latent cache are in use", n_pages()));
  const PageId page = free_.back();
  free_.pop_back();
  at(page).users = 1;
  ++n_used_;
  return page;
}

void PagePool::use(PageId page) {
  MINKE_ASSERT(at(page).users > 0 || at(page).kept);
  if (at(page).users++ == 0) ++n_used_;
}

void PagePool::drop(PageId page) {
  MINKE_ASSERT(at(page).users > 0);
  if (--at(page).users > 0) return;
  --n_used_;
  if (!at(page).kept) free_.push_back(page);
}

void PagePool::keep(PageId page) {
  MINKE_ASSERT(at(page).users > 0 && !at(page).kept);
  at(page).kept = true;
}

void PagePool::unkeep(PageId page) {
  MINKE_ASSERT(at(page).kept);
  at(page).kept = false;
  if (at(page).users == 0) free_.push_back(page);
}

void* PagePool::rows(PageId page, Index layer) const {
  const auto layer_bytes =
      static_cast<std::size_t>(kKeyTile * layout_.width) * size_of(layout_.dtype);
  return memory_ + static_cast<std::size_t>(page) * stride_ +
         static_cast<std::size_t>(layer) * layer_bytes;
}

std::span<std::byte> PagePool::bytes(PageId page) const {
  return {memory_ + static_cast<std::size_t>(page) * stride_, layout_.bytes()};
}

PagedCache::PagedCache(PagePool& pool)
    : pool_(&pool),
      rows_(static_cast<std::size_t>(pool.layout().n_layers)),
      lengths_(static_cast<std::size_t>(pool.layout().n_layers)) {}

PagedCache::PagedCache(PagedCache&& other) noexcept
    : pool_(other.pool_),
      table_(std::exchange(other.table_, {})),
      rows_(std::move(other.rows_)),
      lengths_(std::move(other.lengths_)) {}

PagedCache& PagedCache::operator=(PagedCache&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(table_, other.table_);
  std::swap(rows_, other.rows_);
  std::swap(lengths_, other.lengths_);
  return *this;
}

void PagedCache::add_page(PageId page) {
  table_.push_back(page);
  for (std::size_t layer = 0; layer < rows_.size(); ++layer)
    rows_[layer].push_back(pool_->rows(page, static_cast<Index>(layer)));
}

void PagedCache::reserve(Index n) {
  while (static_cast<Index>(table_.size()) < pages_for(n)) add_page(pool_->take());
}

void PagedCache::append(Index layer, View2<const float> rows) {
  Index& length = lengths_[static_cast<std::size_t>(layer)];
  const Index width = pool_->layout().width;
  MINKE_ASSERT(pages_for(length + rows.extent(0)) <= static_cast<Index>(table_.size()));
  for (Index done = 0; done < rows.extent(0);) {
    void* page = pool_->rows(table_[static_cast<std::size_t>(length / kKeyTile)], layer);
    const Index at = length % kKeyTile;
    const Index n = std::min(kKeyTile - at, rows.extent(0) - done);
    const View2<const float> from = rows.rows(done, n);
    if (dtype() == DType::BF16)
      copy(from, View2<BF16>(static_cast<BF16*>(page), {kKeyTile, width}).rows(at, n));
    else
      copy(from, View2<float>(static_cast<float*>(page), {kKeyTile, width}).rows(at, n));
    done += n;
    length += n;
  }
}

void PagedCache::truncate(Index n) {
  for (Index& length : lengths_) length = std::min(length, n);
}

void PagedCache::adopt(std::span<const PageId> full_pages) {
  MINKE_ASSERT(table_.empty());
  for (const PageId page : full_pages) {
    pool_->use(page);
    add_page(page);
  }
  std::fill(lengths_.begin(), lengths_.end(), static_cast<Index>(full_pages.size()) * kKeyTile);
}

PagedCache PagedCache::fork(Index n) const {
  MINKE_ASSERT(n <= lengths_.front());
  PagedCache copy(*pool_);
  const Index n_whole = n / kKeyTile;
  copy.adopt(std::span(table_).first(static_cast<std::size_t>(n_whole)));
  if (n % kKeyTile != 0) {
    copy.reserve(n);
    const auto from = pool_->bytes(table_[static_cast<std::size_t>(n_whole)]);
    std::memcpy(pool_->bytes(copy.table_.back()).data(), from.data(), from.size());
  }
  for (std::size_t layer = 0; layer < lengths_.size(); ++layer)
    copy.lengths_[layer] = std::min(n, lengths_[layer]);
  return copy;
}

void PagedCache::clear() {
  for (const PageId page : table_) pool_->drop(page);
  table_.clear();
  for (auto& rows : rows_) rows.clear();
  std::fill(lengths_.begin(), lengths_.end(), 0);
}

Index PagedCache::n_own() const {
  return std::count_if(table_.begin(), table_.end(),
                       [&](PageId page) { return pool_->users(page) == 1; });
}

}  // namespace minke

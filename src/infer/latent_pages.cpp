#include "infer/latent_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace minke {
namespace {

constexpr std::size_t kCacheLine = 64;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

}  // namespace

PagePool::PagePool(const PageLayout& layout, Index n_pages, LayerRanks* ranks)
    : layout_(layout), stride_(aligned(layout.bytes())), numbers_(ranks) {
  if (n_pages < 1) throw ConfigError("the latent cache has no page; give it more bytes");
  memory_ = ReservedMemory(stride_ * static_cast<std::size_t>(n_pages), "the latent cache");
  numbers_.add(n_pages);
  pages_.resize(static_cast<std::size_t>(n_pages));
  for (Index i = n_pages; i-- > 0;) free_.push_back(static_cast<PageId>(i));
}

void PagePool::touch(std::size_t bytes) {
  const std::size_t n = std::min(free_.size(), bytes / stride_);
  for (auto page = free_.rbegin(); page != free_.rbegin() + static_cast<std::ptrdiff_t>(n); ++page)
    std::memset(this->bytes(*page).data(), 0, layout_.bytes());
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
  MINKE_ASSERT(at(page).users > 0 || at(page).kept > 0);
  if (at(page).users++ == 0) ++n_used_;
}

void PagePool::drop(PageId page) {
  MINKE_ASSERT(at(page).users > 0);
  if (--at(page).users > 0) return;
  --n_used_;
  if (at(page).kept == 0) free_.push_back(page);
}

void PagePool::keep(PageId page) {
  MINKE_ASSERT(at(page).users > 0);
  ++at(page).kept;
}

void PagePool::unkeep(PageId page) {
  MINKE_ASSERT(at(page).kept > 0);
  if (--at(page).kept == 0 && at(page).users == 0) free_.push_back(page);
}

void* PagePool::rows(PageId page, Index layer) const {
  return memory_.data() + static_cast<std::size_t>(page) * stride_ +
         static_cast<std::size_t>(layer - layout_.first) * layout_.layer_bytes();
}

void PagePool::copy(PageId from, PageId to) {
  std::memcpy(bytes(to).data(), bytes(from).data(), layout_.bytes());
  if (has_numbers()) numbers_.ranks()->copy_page(number(from), number(to));
}

std::span<std::byte> PagePool::bytes(PageId page) const {
  return {memory_.data() + static_cast<std::size_t>(page) * stride_, layout_.bytes()};
}

PagedCache::PagedCache(PagePool& pool)
    : pool_(&pool), layers_(static_cast<std::size_t>(pool.layout().n_layers)) {}

PagedCache::PagedCache(PagedCache&& other) noexcept
    : pool_(other.pool_),
      table_(std::exchange(other.table_, {})),
      numbers_(std::exchange(other.numbers_, {})),
      layers_(std::move(other.layers_)) {}

PagedCache& PagedCache::operator=(PagedCache&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(table_, other.table_);
  std::swap(numbers_, other.numbers_);
  std::swap(layers_, other.layers_);
  return *this;
}

void PagedCache::add_page(PageId page) {
  table_.push_back(page);
  if (pool_->has_numbers()) numbers_.push_back(pool_->number(page));
  for (Index layer = pool_->layout().first; layer < pool_->layout().n_layers; ++layer)
    of(layer).pages.push_back(pool_->rows(page, layer));
}

void PagedCache::reserve(Index n) {
  while (static_cast<Index>(table_.size()) < pages_for(n)) add_page(pool_->take());
}

void PagedCache::expect(Index n) {
  const auto n_pages = static_cast<std::size_t>(pages_for(n));
  table_.reserve(n_pages);
  if (pool_->has_numbers()) numbers_.reserve(n_pages);
  for (Layer& layer : layers_) layer.pages.reserve(n_pages);
}

void PagedCache::append(Index index, View2<const float> rows) {
  Layer& layer = of(index);
  MINKE_ASSERT(layer.first_page + pages_for(layer.length + rows.extent(0)) <=
               static_cast<Index>(table_.size()));
  layer.length = append_rows(row(), layer.length, rows, [&](Index page) {
    const PageId id = table_[static_cast<std::size_t>(layer.first_page + page)];
    return static_cast<std::byte*>(pool_->rows(id, index));
  });
}

void PagedCache::truncate(Index n) {
  for (Layer& layer : layers_) layer.length = std::clamp<Index>(n - layer.origin, 0, layer.length);
}

void PagedCache::restart(Index index, Index position) {
  const Index page = position / kKeyTile;
  MINKE_ASSERT(pool_->users(table_[static_cast<std::size_t>(page)]) == 1);
  Layer& layer = of(index);
  layer.length = 0;
  layer.origin = position;
  layer.first_page = page;
}

void PagedCache::adopt(std::span<const PageId> full_pages) {
  MINKE_ASSERT(table_.empty());
  for (const PageId page : full_pages) {
    pool_->use(page);
    add_page(page);
  }
  for (Layer& layer : layers_) layer.length = static_cast<Index>(full_pages.size()) * kKeyTile;
}

void PagedCache::adopt_copy(PageId page, Index n) {
  MINKE_ASSERT(n / kKeyTile == static_cast<Index>(table_.size()));
  const PageId copy = pool_->take();
  pool_->copy(page, copy);
  add_page(copy);
  for (Layer& layer : layers_) layer.length = n;
}

void PagedCache::count_rows(Index index, Index n) {
  Layer& layer = of(index);
  MINKE_ASSERT(pages_for(layer.length + n) <= static_cast<Index>(table_.size()));
  layer.length += n;
}

PagedCache PagedCache::fork(Index n) const {
  MINKE_ASSERT(n <= length(0));
  PagedCache copy(*pool_);
  const Index n_whole = n / kKeyTile;
  copy.adopt(std::span(table_).first(static_cast<std::size_t>(n_whole)));
  if (n % kKeyTile != 0) {
    copy.reserve(n);
    pool_->copy(table_[static_cast<std::size_t>(n_whole)], copy.table_.back());
  }
  for (std::size_t layer = 0; layer < layers_.size(); ++layer)
    copy.layers_[layer].length =
        layers_[layer].origin == 0 ? std::min(n, layers_[layer].length) : 0;
  return copy;
}

void PagedCache::clear() {
  for (const PageId page : table_) pool_->drop(page);
  table_.clear();
  numbers_.clear();
  for (Layer& layer : layers_) {
    layer.pages.clear();
    layer.length = layer.origin = layer.first_page = 0;
  }
}

Index PagedCache::n_own() const {
  return std::count_if(table_.begin(), table_.end(),
                       [&](PageId page) { return pool_->users(page) == 1; });
}

}  // namespace minke

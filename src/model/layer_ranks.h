// The layers of a model that other ranks run, as the rank has them that has the model's ends: the
// embedding, the last layers, final norm, output head and MTP modules. parallel/spread_layers.h
// sends rows to the others and back.
//
// Each rank keeps the latent rows of its own layers. Which rows belong to which sequence is known
// to the first rank alone: it gives the pages of all caches numbers, and names them in every pass.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace minke {

template <class Real>
struct ModelOf;
struct Segment;
using PageNumber = std::int32_t;

class LayerRanks {
 public:
  virtual ~LayerRanks() = default;

  // x [T, D], the embedded rows of all segments -> behind the last layer, wherever each layer is.
  // The caches grow by the new rows in every layer of the main model.
  virtual Tensor pass(const ModelOf<float>& model, std::span<const Segment> segments, Tensor x) = 0;

  // n numbers that no page has, and the first of them.
  virtual PageNumber take_pages(Index n) = 0;
  virtual void give_back(std::span<const PageNumber> pages) = 0;
  // On the other ranks; what is here is copied by whoever calls.
  virtual void copy_page(PageNumber from, PageNumber to) = 0;
};

// The numbers of a cache's pages, given back at the end; none where all layers are here.
class PageNumbers {
 public:
  explicit PageNumbers(LayerRanks* ranks = nullptr) : ranks_(ranks) {}
  ~PageNumbers() {
    if (ranks_) ranks_->give_back(numbers_);
  }
  PageNumbers(PageNumbers&& other) noexcept
      : ranks_(std::exchange(other.ranks_, nullptr)), numbers_(std::move(other.numbers_)) {}
  PageNumbers& operator=(PageNumbers&& other) noexcept {
    std::swap(ranks_, other.ranks_);
    std::swap(numbers_, other.numbers_);
    return *this;
  }

  void add(Index n) {
    if (!ranks_) return;
    const PageNumber first = ranks_->take_pages(n);
    for (Index i = 0; i < n; ++i) numbers_.push_back(first + static_cast<PageNumber>(i));
  }
  std::span<const PageNumber> all() const { return numbers_; }
  LayerRanks* ranks() const { return ranks_; }

 private:
  LayerRanks* ranks_;
  std::vector<PageNumber> numbers_;
};

}  // namespace minke

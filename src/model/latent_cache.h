// The latent cache: per token and layer the row [c_kv (C) ; k_rope (R)] and nothing else (the
// report's section 2.1.1), in one of the forms of ops/latent_rows.h and in pages of kKeyTile rows.
// Prompts and generated tokens read what was stored, in both forms of attention. LatentCache says
// what the model needs of a cache, whoever owns the pages; SequenceCache owns those of one
// sequence.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "tensor/reserved_memory.h"

namespace minke {

class LatentCache {
 public:
  virtual ~LatentCache() = default;
  // What a row is in memory, the same in all layers.
  virtual const LatentRow& row() const = 0;
  // Rows that `layer` holds; MTP module k is layer L + k.
  virtual Index length(Index layer) const = 0;
  // Makes room for rows up to `n` in every layer. May throw when there is no more room.
  virtual void reserve(Index n) = 0;
  // Appends rows [n, C+R] to a layer; there must be room.
  virtual void append(Index layer, View2<const float> rows) = 0;
  // Pages of a layer, for attention. Valid until the next reserve.
  virtual std::span<const void* const> pages(Index layer) const = 0;
  // Forgets rows from `n` on, in every layer (a rejected draft).
  virtual void truncate(Index n) = 0;
  // n rows more of a layer, which are in their pages: here, or on the rank that keeps the layer.
  virtual void count_rows(Index layer, Index n) = 0;
  // Of the pages of all layers, by which other ranks know theirs; empty where all layers are here.
  virtual std::span<const PageNumber> page_numbers() const = 0;
};

class SequenceCache final : public LatentCache {
 public:
  SequenceCache(const ModelConfig& config, DType dtype, LayerRanks* ranks = nullptr);
  explicit SequenceCache(const Model& model);  // as cache_dtype says
  const LatentRow& row() const override { return row_; }
  Index length(Index layer) const override {
    return layers_[static_cast<std::size_t>(layer)].length;
  }
  void reserve(Index n) override;
  void append(Index layer, View2<const float> rows) override;
  std::span<const void* const> pages(Index layer) const override {
    return layers_[static_cast<std::size_t>(layer)].pages;
  }
  void truncate(Index n) override;
  void count_rows(Index layer, Index n) override;
  std::span<const PageNumber> page_numbers() const override { return numbers_.all(); }
  std::size_t bytes() const;  // of the pages that there are, of the layers held here

 private:
  struct Layer {
    Index slot = -1;  // among the layers held here
    std::vector<const void*> pages;
    Index length = 0;
  };
  std::size_t layer_bytes() const { return static_cast<std::size_t>(kKeyTile) * row_.bytes(); }
  void add_page();
  std::byte* rows(Index page, Index slot) const;

  LatentRow row_;
  std::vector<Layer> layers_;
  Index n_slots_ = 0;
  PageNumbers numbers_;
  Index n_pages_ = 0;                   // of all layers
  Index piece_pages_;                   // what the context needs: longer ones take another piece
  std::vector<ReservedMemory> pieces_;  // of pages, the layers of a page side by side
};

// FP32 for Compute::Fp32 and Fp8 (whose other arithmetic is FP32), BF16 for Compute::Bf16.
DType cache_dtype(Compute compute);
// That, unless the model says otherwise.
DType cache_dtype(const Model& model);
// "auto" (none), "fp32", "bf16" or "fp8"; ConfigError for another name.
std::optional<DType> parse_cache_dtype(std::string_view name);

LatentRow latent_row(const ModelConfig& config, DType dtype);
// Bytes of the latent cache per token, all layers of the main model.
std::size_t cache_bytes_per_token(const ModelConfig& config, DType dtype);

// Stores rows [n, C+R] behind the `length` that a layer has, in pages that are there; page(p) is
// the memory of one. Returns the new length.
Index append_rows(const LatentRow& row, Index length, View2<const float> rows,
                  FunctionRef<std::byte*(Index)> page);
// Rows [0, n) of a layer as FP32 [n, C+R].
Tensor read_rows(const LatentCache& cache, Index layer, Index n);
// Attention over the first n rows of a layer, as key and value of all heads (ops/attention.h).
void attend_rows(const LatentCache& cache, const AttentionShape& shape, Index layer, Index n,
                 View2<const float> q, Index first_position, double scale, View2<float> out);

}  // namespace minke

// The latent cache: per token and layer the row [c_kv (C) ; k_rope (R)] and nothing else (the
// report's section 2.1.1), in pages of kKeyTile rows. LatentCache says what the model needs of a
// cache, whoever owns the pages; SequenceCache owns those of one sequence.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "model/weights.h"
#include "ops/attention.h"

namespace minke {

class LatentCache {
 public:
  virtual ~LatentCache() = default;
  // F32, or BF16: what rows are rounded to when stored. One type for all layers.
  virtual DType dtype() const = 0;
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
};

class SequenceCache final : public LatentCache {
 public:
  SequenceCache(const ModelConfig& config, DType dtype);
  DType dtype() const override { return dtype_; }
  Index length(Index layer) const override {
    return layers_[static_cast<std::size_t>(layer)].length;
  }
  void reserve(Index n) override;
  void append(Index layer, View2<const float> rows) override;
  std::span<const void* const> pages(Index layer) const override {
    return layers_[static_cast<std::size_t>(layer)].pages;
  }
  void truncate(Index n) override;
  std::size_t bytes() const;

 private:
  struct Layer {
    std::vector<Tensor> memory;  // [kKeyTile, C+R] each
    std::vector<const void*> pages;
    Index length = 0;
  };
  DType dtype_;
  Index width_;
  std::vector<Layer> layers_;
};

// FP32 for Compute::Fp32 and Fp8 (whose other arithmetic is FP32), BF16 for Compute::Bf16.
DType cache_dtype(Compute compute);
// Bytes of the latent cache per token, all layers of the main model.
std::size_t cache_bytes_per_token(const ModelConfig& config, DType dtype);

// Rows [0, n) of a layer as FP32 [n, C+R].
Tensor read_rows(const LatentCache& cache, Index layer, Index width, Index n);
KeyRows<float> key_rows_f32(const LatentCache& cache, Index layer, Index width, Index n);
KeyRows<BF16> key_rows_bf16(const LatentCache& cache, Index layer, Index width, Index n);

}  // namespace minke

#include "model/latent_cache.h"

#include "base/error.h"
#include "ops/permute.h"

namespace minke {
namespace {

View2<const float> page_f32(const void* page, Index width, Index n) {
  return {static_cast<const float*>(page), {n, width}};
}
View2<const BF16> page_bf16(const void* page, Index width, Index n) {
  return {static_cast<const BF16*>(page), {n, width}};
}

template <class T>
KeyRows<T> key_rows(const LatentCache& cache, Index layer, Index width, Index n) {
  const auto pages = cache.pages(layer);
  return KeyRows<T>::of(std::span(reinterpret_cast<const T* const*>(pages.data()), pages.size()),
                        width, n);
}

}  // namespace

DType cache_dtype(Compute compute) {
  return compute == Compute::Bf16 ? DType::BF16 : DType::F32;
}

std::size_t cache_bytes_per_token(const ModelConfig& c, DType dtype) {
  return static_cast<std::size_t>(c.num_hidden_layers * c.cache_row()) * size_of(dtype);
}

SequenceCache::SequenceCache(const ModelConfig& config, DType dtype)
    : dtype_(dtype),
      width_(config.cache_row()),
      layers_(
          static_cast<std::size_t>(config.num_hidden_layers + config.num_nextn_predict_layers)) {}

void SequenceCache::reserve(Index n) {
  for (Layer& layer : layers_)
    while (static_cast<Index>(layer.memory.size()) * kKeyTile < n) {
      layer.memory.push_back(Tensor(dtype_, {kKeyTile, width_}));
      layer.pages.push_back(layer.memory.back().raw());
    }
}

void SequenceCache::append(Index index, View2<const float> rows) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  MINKE_ASSERT(layer.length + rows.extent(0) <= static_cast<Index>(layer.memory.size()) * kKeyTile);
  for (Index done = 0; done < rows.extent(0);) {
    Tensor& page = layer.memory[static_cast<std::size_t>(layer.length / kKeyTile)];
    const Index at = layer.length % kKeyTile;
    const Index n = std::min(kKeyTile - at, rows.extent(0) - done);
    if (dtype_ == DType::BF16)
      copy(rows.rows(done, n), page.view<BF16, 2>().rows(at, n));
    else
      copy(rows.rows(done, n), page.v2().rows(at, n));
    done += n;
    layer.length += n;
  }
}

void SequenceCache::truncate(Index n) {
  for (Layer& layer : layers_) layer.length = std::min(layer.length, n);
}

std::size_t SequenceCache::bytes() const {
  std::size_t total = 0;
  for (const Layer& layer : layers_)
    for (const Tensor& page : layer.memory) total += page.bytes();
  return total;
}

Tensor read_rows(const LatentCache& cache, Index layer, Index width, Index n) {
  Tensor rows = Tensor::uninitialized({n, width});
  const auto pages = cache.pages(layer);
  for (Index begin = 0; begin < n; begin += kKeyTile) {
    const void* page = pages[static_cast<std::size_t>(begin / kKeyTile)];
    const Index count = std::min(kKeyTile, n - begin);
    const View2<float> to = rows.v2().rows(begin, count);
    if (cache.dtype() == DType::BF16)
      copy(page_bf16(page, width, count), to);
    else
      copy(page_f32(page, width, count), to);
  }
  return rows;
}

KeyRows<float> key_rows_f32(const LatentCache& cache, Index layer, Index width, Index n) {
  return key_rows<float>(cache, layer, width, n);
}
KeyRows<BF16> key_rows_bf16(const LatentCache& cache, Index layer, Index width, Index n) {
  return key_rows<BF16>(cache, layer, width, n);
}

}  // namespace minke

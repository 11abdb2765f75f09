#include "model/latent_cache.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace minke {
namespace {

template <class T>
KeyRows<T> key_rows(const LatentCache& cache, Index layer, Index n) {
  const auto pages = cache.pages(layer);
  return KeyRows<T>::of(std::span(reinterpret_cast<const T* const*>(pages.data()), pages.size()),
                        cache.row().width(), n);
}

}  // namespace

DType cache_dtype(Compute compute) {
  return compute == Compute::Bf16 ? DType::BF16 : DType::F32;
}

DType cache_dtype(const Model& model) {
  return model.cache_dtype.value_or(cache_dtype(model.compute));
}

std::optional<DType> parse_cache_dtype(std::string_view name) {
  if (name == "auto") return std::nullopt;
  if (name == "fp32") return DType::F32;
  if (name == "bf16") return DType::BF16;
  if (name == "fp8") return DType::F8_E4M3;
  throw ConfigError(fmt::format("cache-dtype is \"{}\"; expected auto, bf16, fp8 or fp32", name));
}

LatentRow latent_row(const ModelConfig& config, DType dtype) {
  return {dtype, config.kv_lora_rank, config.qk_rope_head_dim};
}

std::size_t cache_bytes_per_token(const ModelConfig& c, DType dtype) {
  return static_cast<std::size_t>(c.num_hidden_layers) * latent_row(c, dtype).bytes();
}

SequenceCache::SequenceCache(const ModelConfig& config, DType dtype, LayerRanks* ranks)
    : row_(latent_row(config, dtype)),
      layers_(static_cast<std::size_t>(config.num_hidden_layers + config.num_nextn_predict_layers)),
      numbers_(ranks),
      piece_pages_(std::max<Index>(1, (config.max_position_embeddings + kKeyTile - 1) / kKeyTile)) {
  for (std::size_t layer = 0; layer < layers_.size(); ++layer)
    if (config.holds_layer(static_cast<Index>(layer))) layers_[layer].slot = n_slots_++;
  n_slots_ = std::max<Index>(1, n_slots_);  // pages have addresses even where no layer is held
}

SequenceCache::SequenceCache(const Model& model)
    : SequenceCache(model.config, minke::cache_dtype(model), model.layer_ranks) {}

void SequenceCache::reserve(Index n) {
  while (n_pages_ * kKeyTile < n) add_page();
}

void SequenceCache::add_page() {
  if (n_pages_ % piece_pages_ == 0) {
    const auto n = static_cast<std::size_t>(n_pages_ + piece_pages_);
    pieces_.emplace_back(static_cast<std::size_t>(piece_pages_ * n_slots_) * layer_bytes(),
                         "the latent cache of a sequence");
    for (Layer& layer : layers_) layer.pages.reserve(n);
  }
  const Index page = n_pages_++;
  numbers_.add(1);
  for (Layer& layer : layers_)
    if (layer.slot >= 0) layer.pages.push_back(rows(page, layer.slot));
}

std::byte* SequenceCache::rows(Index page, Index slot) const {
  const Index of_piece = page % piece_pages_ * n_slots_ + slot;
  return pieces_[static_cast<std::size_t>(page / piece_pages_)].data() +
         static_cast<std::size_t>(of_piece) * layer_bytes();
}

void SequenceCache::append(Index index, View2<const float> rows) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  MINKE_ASSERT(layer.length + rows.extent(0) <= n_pages_ * kKeyTile);
  layer.length = append_rows(row_, layer.length, rows,
                             [&](Index page) { return this->rows(page, layer.slot); });
}

void SequenceCache::truncate(Index n) {
  for (Layer& layer : layers_) layer.length = std::min(layer.length, n);
}

void SequenceCache::count_rows(Index index, Index n) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  MINKE_ASSERT(layer.length + n <= n_pages_ * kKeyTile);
  layer.length += n;
}

std::size_t SequenceCache::bytes() const {
  return static_cast<std::size_t>(n_pages_ * n_slots_) * layer_bytes();
}

Index append_rows(const LatentRow& row, Index length, View2<const float> rows,
                  FunctionRef<std::byte*(Index)> page) {
  for (Index done = 0; done < rows.extent(0);) {
    const Index at = length % kKeyTile;
    const Index n = std::min(kKeyTile - at, rows.extent(0) - done);
    store_latent_rows(row, rows.rows(done, n),
                      page(length / kKeyTile) + static_cast<std::size_t>(at) * row.bytes());
    done += n;
    length += n;
  }
  return length;
}

Tensor read_rows(const LatentCache& cache, Index layer, Index n) {
  const LatentRow& row = cache.row();
  Tensor rows = Tensor::uninitialized({n, row.width()});
  const auto pages = cache.pages(layer);
  for (Index begin = 0; begin < n; begin += kKeyTile) {
    const Index count = std::min(kKeyTile, n - begin);
    const void* page = pages[static_cast<std::size_t>(begin / kKeyTile)];
    load_latent_rows(row, static_cast<const std::byte*>(page), rows.v2().rows(begin, count));
  }
  return rows;
}

void attend_rows(const LatentCache& cache, const AttentionShape& shape, Index layer, Index n,
                 View2<const float> q, Index first_position, double scale, View2<float> out) {
  const LatentRow& row = cache.row();
  if (row.dtype == DType::F8_E4M3)
    return attention_forward(shape, q, Fp8LatentRows{row, cache.pages(layer), n}, first_position,
                             scale, out);
  if (row.dtype == DType::BF16) {
    const auto rows = key_rows<BF16>(cache, layer, n);
    return attention_forward(shape, q, rows, rows, first_position, scale, out);
  }
  const auto rows = key_rows<float>(cache, layer, n);
  attention_forward(shape, q, rows, rows, first_position, scale, out);
}

}  // namespace minke

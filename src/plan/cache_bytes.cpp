#include "plan/cache_bytes.h"

#include <fmt/format.h>

#include <vector>

#include "ops/latent_rows.h"

namespace minke {

CacheRow grouped_cache(const PlanModel& model, Index heads, Index size) {
  std::string scheme = fmt::format("GQA-{}", heads);
  if (heads == 1) scheme = "MQA";
  if (heads == model.num_attention_heads) scheme = "MHA";
  return {scheme, model.num_hidden_layers, 2 * heads * size};
}

CacheRow cache_row(const PlanModel& model) {
  if (model.attention == AttentionKind::Grouped)
    return grouped_cache(model, model.num_key_value_heads, model.head_dim);
  return {"MLA", model.num_hidden_layers, model.kv_lora_rank + model.qk_rope_head_dim};
}

double fp8_cache_bytes(const PlanModel& model) {
  if (model.attention != AttentionKind::Latent) return 0;
  const LatentRow row{DType::F8_E4M3, model.kv_lora_rank, model.qk_rope_head_dim};
  return static_cast<double>(model.num_hidden_layers) * static_cast<double>(row.bytes());
}

std::vector<CacheRow> cache_alternatives(const PlanModel& model) {
  const Index H = model.num_attention_heads, size = model.value_size();
  std::vector<CacheRow> rows = {grouped_cache(model, H, size)};
  if (H > 8 && H % 8 == 0) rows.push_back(grouped_cache(model, 8, size));
  if (H > 1) rows.push_back(grouped_cache(model, 1, size));
  if (model.attention == AttentionKind::Latent)
    rows.push_back({"MLA expanded", model.num_hidden_layers, H * (model.qk_size() + size)});
  const std::string own = cache_row(model).scheme;
  std::erase_if(rows, [&](const CacheRow& row) { return row.scheme == own; });
  return rows;
}

}  // namespace minke

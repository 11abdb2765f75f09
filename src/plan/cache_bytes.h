// What a token leaves in the cache of keys and values.
//
//   MLA             L (C + R)          elements (arXiv 2412.19437, section 2.1.1)
//   MHA, GQA, MQA   L 2 heads size     elements (arXiv 2405.04434, table 1)
//   expanded MLA    L H (N + R + V)    elements: MLA kept as the keys and values of every head
//
// A saving means nothing without what it is compared with, so every row has its baseline's name.
#pragma once
#include <string>
#include <vector>

#include "plan/plan_model.h"

namespace minke {

struct CacheRow {
  std::string scheme;  // "MLA", "GQA-8", ...
  Index layers = 0;
  Index elements_per_layer = 0;  // of one token
  Index elements() const { return layers * elements_per_layer; }
  double bytes(double bits_per_element) const {
    return static_cast<double>(elements()) * bits_per_element / 8;
  }
};

CacheRow cache_row(const PlanModel& model);

// Bytes of a token of MLA with c_kv in E4M3 and its scales (ops/latent_rows.h), all layers; 0 for
// other schemes.
double fp8_cache_bytes(const PlanModel& model);

// The same model with heads of its value size cached in another way: MHA, GQA of 8 groups, MQA,
// and for MLA the expanded form; not the way it is.
std::vector<CacheRow> cache_alternatives(const PlanModel& model);

// Keys and values of `heads` heads of `size` in every layer of the model.
CacheRow grouped_cache(const PlanModel& model, Index heads, Index size);

}  // namespace minke

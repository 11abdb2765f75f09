#include "infer/token_score.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace minke {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - largest);
  return largest + std::log(sum);
}

BlockVector<std::int32_t> most_likely(std::span<const float> logits, Index n) {
  BlockVector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + std::min<Index>(n, static_cast<Index>(ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](std::int32_t a, std::int32_t b) {
    const float za = logits[static_cast<std::size_t>(a)], zb = logits[static_cast<std::size_t>(b)];
    return za != zb ? za > zb : a < b;
  });
  ids.erase(end, ids.end());
  return ids;
}

}  // namespace

ScoredToken score_token(std::span<const float> logits, std::int32_t id, Index top) {
  const double total = log_sum_exp(logits);
  const auto logprob = [&](std::int32_t v) {
    return static_cast<float>(logits[static_cast<std::size_t>(v)] - total);
  };
  ScoredToken token{id, logprob(id), {}};
  if (top > 0)
    for (const std::int32_t v : most_likely(logits, top)) token.top.push_back({v, logprob(v)});
  return token;
}

}  // namespace minke

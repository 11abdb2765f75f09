#include "ops/embedding.h"

#include <fmt/format.h>

#include "base/threads.h"
#include "ops/check_extents.h"

namespace minke {
namespace {

constexpr Index kRowGrain = 64;
constexpr Index kGradientPieces = 32;  // a piece owns the table rows with token % 32 == piece

void check_tokens(const char* operation, std::span<const std::int32_t> tokens, Index vocabulary) {
  for (std::size_t t = 0; t < tokens.size(); ++t)
    if (tokens[t] < 0 || tokens[t] >= vocabulary)
      throw ShapeError(fmt::format(
          "{}: token {} at position {} is outside the vocabulary of {}; does the tokenizer belong "
          "to this model?",
          operation, tokens[t], t, vocabulary));
}

template <class From, class Real>
void embed(View2<const From> table, std::span<const std::int32_t> tokens, View2<Real> y) {
  const Index T = static_cast<Index>(tokens.size()), D = table.extent(1);
  check_extents("embedding_forward", "y", y, {T, D});
  check_tokens("embedding_forward", tokens, table.extent(0));
  parallel_ranges(T, kRowGrain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const From* from = table.data() + tokens[static_cast<std::size_t>(t)] * table.stride(0);
      Real* to = y.data() + t * y.stride(0);
      for (Index d = 0; d < D; ++d) to[d] = from[d];
    }
  });
}

template <class Real>
void add_rows(View2<const Real> dy, std::span<const std::int32_t> tokens, View2<Real> dtable) {
  const Index T = static_cast<Index>(tokens.size()), D = dtable.extent(1);
  check_extents("embedding_backward_weight", "dy", dy, {T, D});
  check_tokens("embedding_backward_weight", tokens, dtable.extent(0));
  parallel_for(kGradientPieces, [&](Index piece) {
    for (Index t = 0; t < T; ++t) {
      const Index token = tokens[static_cast<std::size_t>(t)];
      if (token % kGradientPieces != piece) continue;
      const Real* from = dy.data() + t * dy.stride(0);
      Real* to = dtable.data() + token * dtable.stride(0);
      for (Index d = 0; d < D; ++d) to[d] += from[d];
    }
  });
}

}  // namespace

void embedding_forward(View2<const float> table, std::span<const std::int32_t> tokens,
                       View2<float> y) {
  embed(table, tokens, y);
}

void embedding_forward(View2<const BF16> table, std::span<const std::int32_t> tokens,
                       View2<float> y) {
  embed(table, tokens, y);
}

void embedding_forward(View2<const double> table, std::span<const std::int32_t> tokens,
                       View2<double> y) {
  embed(table, tokens, y);
}

void embedding_backward_weight(View2<const float> dy, std::span<const std::int32_t> tokens,
                               View2<float> dtable) {
  add_rows(dy, tokens, dtable);
}

void embedding_backward_weight(View2<const double> dy, std::span<const std::int32_t> tokens,
                               View2<double> dtable) {
  add_rows(dy, tokens, dtable);
}

}  // namespace minke

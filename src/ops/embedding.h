// Rows of a table by token.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/dtype.h"
#include "tensor/view.h"

namespace minke {

// table [V, D], tokens [T] -> y [T, D]. ShapeError for a token outside [0, V).
void embedding_forward(View2<const float> table, std::span<const std::int32_t> tokens,
                       View2<float> y);
void embedding_forward(View2<const BF16> table, std::span<const std::int32_t> tokens,
                       View2<float> y);
void embedding_forward(View2<const double> table, std::span<const std::int32_t> tokens,
                       View2<double> y);

// dtable[tokens[t]] += dy[t], tokens in rising order of t whatever the threads.
void embedding_backward_weight(View2<const float> dy, std::span<const std::int32_t> tokens,
                               View2<float> dtable);
void embedding_backward_weight(View2<const double> dy, std::span<const std::int32_t> tokens,
                               View2<double> dtable);

}  // namespace minke

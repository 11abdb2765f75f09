// Rows of tokens in the form in which they travel between ranks.
#pragma once
#include "ops/fp8_tiles.h"
#include "ops/permute.h"
#include "tensor/tensor.h"

namespace minke {

// Full: as they are, in FP32, double, or BF16 where only linears read them (model/operand.h). Fp8:
// E4M3 codes in tiles of 1x128 with power-of-two scales (the report, 3.3.3). Rows in double are
// never rounded.
enum class RowForm : std::uint8_t { Full, Bf16, Fp8 };

struct TokenRows {
  Tensor values;  // [n, D] F32, F64, BF16 or E4M3
  Tensor scales;  // [n, ceil(D / 128)] of E4M3
};

// x [n, D] of any of these types -> x[order.token[i]].
Tensor gathered(const Tensor& x, const ExpertOrder& order);
Tensor gathered(View2<const float> x, const ExpertOrder& order);
Tensor gathered(View2<const double> x, const ExpertOrder& order);
TokenRows gathered(const TokenRows& x, const ExpertOrder& order);
TokenRows gathered(const Fp8View& x, const ExpertOrder& order);

// The same, rounded.
TokenRows gathered(View2<const float> x, RowForm form, const ExpertOrder& order);
TokenRows gathered(View2<const double> x, RowForm form, const ExpertOrder& order);
TokenRows gathered(View2<const BF16> x, RowForm form, const ExpertOrder& order);

// x in BF16; double stays as it is.
Tensor narrowed(Tensor x);
// The values of rows of any form, as T: float, double, or BF16 of what was rounded to it before.
template <class T>
Tensor values_as(TokenRows rows);

// The order that takes these rows, one after another.
ExpertOrder order_of(BlockVector<std::int32_t> rows);

}  // namespace minke

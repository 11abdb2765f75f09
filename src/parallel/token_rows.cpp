#include "parallel/token_rows.h"

#include <utility>

namespace minke {
namespace {

template <class T>
Tensor gathered_as(View2<const T> x, const ExpertOrder& order) {
  Tensor rows = Tensor::uninitialized<T>({static_cast<Index>(order.token.size()), x.extent(1)});
  gather_tokens(x, order, rows.v2<T>());
  return rows;
}

}  // namespace

Tensor gathered(const Tensor& x, const ExpertOrder& order) {
  switch (x.dtype()) {
    case DType::F64:
      return gathered_as(x.v2<double>(), order);
    case DType::BF16:
      return gathered_as(x.v2<BF16>(), order);
    case DType::F8_E4M3:
      return gathered_as(x.v2<E4M3>(), order);
    default:
      return gathered_as(x.v2(), order);
  }
}

Tensor gathered(View2<const float> x, const ExpertOrder& order) {
  return gathered_as(x, order);
}
Tensor gathered(View2<const double> x, const ExpertOrder& order) {
  return gathered_as(x, order);
}

TokenRows gathered(const TokenRows& x, const ExpertOrder& order) {
  TokenRows rows{gathered(x.values, order), {}};
  if (x.scales.defined()) rows.scales = gathered(x.scales, order);
  return rows;
}
TokenRows gathered(const Fp8View& x, const ExpertOrder& order) {
  return {gathered_as(x.codes, order), gathered_as(x.scales, order)};
}

TokenRows gathered(View2<const float> x, RowForm form, const ExpertOrder& order) {
  if (form == RowForm::Fp8) return gathered(fp8_rows(x, ScaleForm::PowerOfTwo).view(), order);
  Tensor rows = gathered_as(x, order);
  return {form == RowForm::Bf16 ? narrowed(std::move(rows)) : std::move(rows), {}};
}
TokenRows gathered(View2<const double> x, RowForm, const ExpertOrder& order) {
  return {gathered_as(x, order), {}};
}
TokenRows gathered(View2<const BF16> x, RowForm form, const ExpertOrder& order) {
  if (form != RowForm::Fp8) return {gathered_as(x, order), {}};
  Tensor wide = Tensor::uninitialized({x.extent(0), x.extent(1)});
  copy(x, wide.v2());
  return gathered(std::as_const(wide).v2(), form, order);
}

Tensor narrowed(Tensor x) {
  return x.dtype() == DType::F64 ? std::move(x) : rounded_to_bf16(std::as_const(x).v2());
}

template <class T>
Tensor values_as(TokenRows rows) {
  if (rows.values.dtype() == dtype_of<T>) return std::move(rows.values);
  const TokenRows from = std::move(rows);
  Tensor x = Tensor::uninitialized(from.values.shape());
  if (from.scales.defined())
    dequantize({from.values.view<E4M3, 2>(), from.scales.v2()}, x.v2());
  else
    copy(from.values.v2<BF16>(), x.v2());
  return std::is_same_v<T, BF16> ? narrowed(std::move(x)) : std::move(x);
}
template Tensor values_as<float>(TokenRows);
template Tensor values_as<double>(TokenRows);
template Tensor values_as<BF16>(TokenRows);

ExpertOrder order_of(BlockVector<std::int32_t> rows) {
  ExpertOrder order;
  order.token = order.row = std::move(rows);
  return order;
}

}  // namespace minke

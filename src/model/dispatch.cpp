#include "model/dispatch.h"

namespace minke {
namespace {

template <class Real>
Tensor gathered(View2<const Real> x, const ExpertOrder& order) {
  Tensor rows = Tensor::uninitialized<Real>({static_cast<Index>(order.token.size()), x.extent(1)});
  gather_tokens(x, order, rows.v2<Real>());
  return rows;
}

}  // namespace

void LocalDispatch::plan(View2<const std::int32_t> indices, Index n_experts) {
  order_ = sort_by_expert(indices, n_experts);
}

Tensor LocalDispatch::send(View2<const float> x) {
  return gathered(x, order_);
}
Tensor LocalDispatch::send(View2<const double> x) {
  return gathered(x, order_);
}

Tensor LocalDispatch::send(View2<const BF16> x) {
  return gathered(x, order_);
}

Fp8Rows LocalDispatch::send(const Fp8View& x) {
  Fp8Rows rows{
      Tensor::uninitialized<E4M3>({static_cast<Index>(order_.token.size()), x.codes.extent(1)}),
      gathered(x.scales, order_)};
  gather_tokens(x.codes, order_, rows.codes.view<E4M3, 2>());
  return rows;
}

void LocalDispatch::combine(View2<const float> rows, View2<const float> weights, View2<float> y) {
  combine_experts(rows, order_, weights, y);
}
void LocalDispatch::combine(View2<const double> rows, View2<const double> weights,
                            View2<double> y) {
  combine_experts(rows, order_, weights, y);
}

void LocalDispatch::combine_backward(View2<const float> dy, View2<const float> rows,
                                     View2<const float> weights, View2<float> drows,
                                     View2<float> dweights) {
  combine_experts_backward(dy, rows, order_, weights, drows, dweights);
}
void LocalDispatch::combine_backward(View2<const float> dy, View2<const float> rows,
                                     View2<const float> weights, View2<BF16> drows,
                                     View2<float> dweights) {
  combine_experts_backward(dy, rows, order_, weights, drows, dweights);
}
void LocalDispatch::combine_backward(View2<const double> dy, View2<const double> rows,
                                     View2<const double> weights, View2<double> drows,
                                     View2<double> dweights) {
  combine_experts_backward(dy, rows, order_, weights, drows, dweights);
}

void LocalDispatch::send_backward(View2<const float> drows, View2<float> dx) {
  gather_tokens_backward(drows, order_, dx);
}
void LocalDispatch::send_backward(View2<const double> drows, View2<double> dx) {
  gather_tokens_backward(drows, order_, dx);
}

}  // namespace minke

#include "model/dispatch.h"

namespace minke {

void LocalDispatch::plan(View2<const std::int32_t> indices, Index n_experts) {
  order_ = sort_by_expert(indices, n_experts);
}

Tensor LocalDispatch::send(View2<const float> x) {
  Tensor rows = Tensor::uninitialized({n_rows(), x.extent(1)});
  gather_tokens(x, order_, rows.v2());
  return rows;
}

void LocalDispatch::combine(View2<const float> rows, View2<const float> weights, View2<float> y) {
  combine_experts(rows, order_, weights, y);
}

Tensor LocalDispatch::combine_backward(View2<const float> dy, View2<const float> rows,
                                       View2<const float> weights, View2<float> dweights) {
  Tensor drows = Tensor::uninitialized({n_rows(), dy.extent(1)});
  combine_experts_backward(dy, rows, order_, weights, drows.v2(), dweights);
  return drows;
}

void LocalDispatch::send_backward(View2<const float> drows, View2<float> dx) {
  gather_tokens_backward(drows, order_, dx);
}

}  // namespace minke

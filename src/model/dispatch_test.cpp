#include "model/dispatch.h"

#include <gtest/gtest.h>

#include <vector>

namespace minke {
namespace {

Tensor choices(std::vector<std::int32_t> values, Index T, Index K) {
  Tensor t(DType::I32, {T, K});
  std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(t.raw()));
  return t;
}

TEST(LocalDispatch, NothingIsDroppedWhateverTheChoice) {
  for (const auto& values : {std::vector<std::int32_t>{0, 1, 2, 3, 1, 0}, {3, 2, 3, 2, 3, 2}}) {
    const Tensor indices = choices(values, 3, 2);
    LocalDispatch dispatch;
    dispatch.plan(indices.view<std::int32_t, 2>(), 4);
    EXPECT_EQ(dispatch.offsets().size(), 5u);
    EXPECT_EQ(dispatch.offsets().back(), 6);
    Tensor x = Tensor::zeros({3, 2});
    for (Index t = 0; t < 3; ++t) x.v2()(t, 0) = 1 + static_cast<float>(t), x.v2()(t, 1) = 10;
    const Tensor rows = dispatch.send(x.v2());
    EXPECT_EQ(rows.extent(0), 6);
    // Weighted sums of the unchanged rows give every token its sum of weights times itself.
    Tensor weights = Tensor::zeros({3, 2});
    for (Index t = 0; t < 3; ++t) weights.v2()(t, 0) = 0.5f, weights.v2()(t, 1) = 2;
    Tensor y = Tensor::zeros({3, 2});
    dispatch.combine(rows.v2(), weights.v2(), y.v2());
    for (Index t = 0; t < 3; ++t) EXPECT_FLOAT_EQ(y.v2()(t, 0), 2.5f * (1 + static_cast<float>(t)));

    Tensor dweights = Tensor::zeros({3, 2}), drows = Tensor::uninitialized({6, 2});
    dispatch.combine_backward(std::as_const(x).v2(), rows.v2(), weights.v2(), drows.v2(),
                              dweights.v2());
    EXPECT_FLOAT_EQ(dweights.v2()(1, 0), 2 * 2 + 100);
    Tensor dx = Tensor::zeros({3, 2});
    dispatch.send_backward(std::as_const(drows).v2(), dx.v2());
    for (Index t = 0; t < 3; ++t) EXPECT_FLOAT_EQ(dx.v2()(t, 1), 25);
  }
}

TEST(LocalDispatch, RowsInBf16AreTheRoundedOnes) {
  const Tensor indices = choices({0, 2, 1, 0, 2, 1}, 3, 2);
  LocalDispatch dispatch;
  dispatch.plan(indices.view<std::int32_t, 2>(), 3);
  Tensor x = Tensor::zeros({3, 2}), narrow = Tensor::zeros<BF16>({3, 2});
  for (Index t = 0; t < 3; ++t) x.v2()(t, 0) = 1 + static_cast<float>(t) / 3, x.v2()(t, 1) = 0.1f;
  copy(std::as_const(x).v2(), narrow.v2<BF16>());
  const Tensor rows = dispatch.send(std::as_const(x).v2());
  const Tensor narrow_rows = dispatch.send(std::as_const(narrow).v2<BF16>());
  const Tensor weights = rows.clone();  // [6, 2], of which the first three rows are read
  Tensor dweights = Tensor::zeros({3, 2}), drows = Tensor::uninitialized({6, 2});
  Tensor narrow_dweights = Tensor::zeros({3, 2}),
         narrow_drows = Tensor::uninitialized<BF16>({6, 2});
  const View2<const float> gates = weights.v2().rows(0, 3);
  dispatch.combine_backward(std::as_const(x).v2(), rows.v2(), gates, drows.v2(), dweights.v2());
  dispatch.combine_backward(std::as_const(x).v2(), rows.v2(), gates, narrow_drows.v2<BF16>(),
                            narrow_dweights.v2());
  for (Index r = 0; r < 6; ++r)
    for (Index d = 0; d < 2; ++d) {
      EXPECT_EQ(narrow_rows.v2<BF16>()(r, d).bits, BF16(rows.v2()(r, d)).bits);
      EXPECT_EQ(narrow_drows.v2<BF16>()(r, d).bits, BF16(drows.v2()(r, d)).bits);
    }
  for (Index t = 0; t < 3; ++t) EXPECT_EQ(narrow_dweights.v2()(t, 1), dweights.v2()(t, 1));
}

TEST(LocalDispatch, NoTokensAtAll) {
  const Tensor indices(DType::I32, {0, 2});
  LocalDispatch dispatch;
  dispatch.plan(indices.view<std::int32_t, 2>(), 4);
  EXPECT_EQ(dispatch.offsets().back(), 0);
  const Tensor none = Tensor::zeros({0, 4});
  Tensor weights = Tensor::zeros({0, 2}), y = Tensor::zeros({0, 4});
  const Tensor rows = dispatch.send(none.v2());
  EXPECT_NO_THROW(dispatch.combine(rows.v2(), weights.v2(), y.v2()));
  Tensor drows = Tensor::uninitialized({0, 4});
  EXPECT_NO_THROW(
      dispatch.combine_backward(none.v2(), rows.v2(), weights.v2(), drows.v2(), weights.v2()));
  EXPECT_NO_THROW(dispatch.send_backward(rows.v2(), y.v2()));
}

}  // namespace
}  // namespace minke

#include "ops/gated_products.h"

#include <algorithm>
#include <array>

#include "ops/check_extents.h"
#include "ops/elementwise.h"
#include "ops/product_rows.h"
#include "ops/swiglu.h"

namespace minke {
namespace {

template <class T>
Index count_rows(View2<const T> x) {
  return x.extent(0);
}
Index count_rows(const Fp8View& x) {
  return x.codes.extent(0);
}

template <class X>
gemm::Arithmetic arithmetic_for(const X&, const PackedWeights& w, InputArithmetic inputs) {
  if constexpr (std::is_same_v<X, Fp8View>) return arithmetic_of(w);
  return inputs == InputArithmetic::QuantizedToFp8 ? gemm::Arithmetic::Fp8
                                                   : gemm::Arithmetic::OfForm;
}

// Whether the tiles of both can be made one after the other.
bool can_join(PackedSpan a, PackedSpan b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const PackedWeights* v, const PackedWeights* w) {
                      return v->form() == w->form() && v->form() != WeightForm::Int4;
                    });
}

void grouped(View2<const float> x, std::span<const Index> offsets, PackedSpan w, View2<float> y,
             Write write, InputArithmetic inputs) {
  if (inputs == InputArithmetic::QuantizedToFp8)
    linear_fp8_grouped(x, offsets, w, y, write);
  else
    linear_grouped(x, offsets, w, y, write);
}
template <class X>
void grouped(const X& x, std::span<const Index> offsets, PackedSpan w, View2<float> y, Write write,
             InputArithmetic) {
  linear_grouped(x, offsets, w, y, write);
}

// The same part of matrices that have the same extents.
struct Part {
  Index row, rows, column, columns;

  template <class T>
  T* at(View2<T> x, Index r) const {
    return x.data() + (row + r) * x.stride(0) + column;
  }
};

template <class To>
void unit(const Part& part, View2<const float> gate, View2<const float> up, View2<To> hidden) {
  const auto& kernels = elementwise().to<To>();
  for (Index r = 0; r < part.rows; ++r)
    kernels.swiglu(part.at(gate, r), part.at(up, r), part.at(hidden, r), part.columns);
}

// For each expert that has rows the products of make(expert, first row, rows), their tiles joined.
template <std::size_t kPerExpert>
class Products {
 public:
  template <class Make>
  Products(std::span<const Index> offsets, const Make& make) {
    products_.reserve((offsets.size() - 1) * kPerExpert);
    first_rows_.reserve(offsets.size() - 1);
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
      const Index first = offsets[e], rows = offsets[e + 1] - first;
      if (rows == 0) continue;
      first_rows_.push_back(first);
      std::array<gemm::Product, kPerExpert> of_expert = make(e, first, rows);
      for (std::size_t i = 1; i < kPerExpert; ++i) of_expert[i].joined = true;
      products_.insert(products_.end(), of_expert.begin(), of_expert.end());
    }
  }
  std::span<const gemm::Product> all() const { return products_; }
  Part part(std::size_t product, const gemm::Tile& t) const {
    return {first_rows_[product / kPerExpert] + t.row, t.rows, t.column, t.columns};
  }

 private:
  BlockVector<gemm::Product> products_;
  BlockVector<Index> first_rows_;
};

}  // namespace

template <class X, class To>
void gated_forward(const X& x, std::span<const Index> offsets, PackedSpan w_gate, PackedSpan w_up,
                   View2<float> gate, View2<float> up, View2<To> hidden, InputArithmetic inputs) {
  check_offsets(offsets, w_gate.size(), count_rows(x));
  check_offsets(offsets, w_up.size(), count_rows(x));
  for (const View2<const float>& y : {View2<const float>(gate), View2<const float>(up)})
    check_extents("gated_forward", "gate or up", y, {hidden.extent(0), hidden.extent(1)});
  if (w_gate.empty()) return;
  if (inputs == InputArithmetic::QuantizedToFp8)
    for (const PackedSpan w : {w_gate, w_up})
      for (const PackedWeights* expert : w) check_codes(*expert);
  if (!can_join(w_gate, w_up)) {
    grouped(x, offsets, w_gate, gate, Write::Overwrite, inputs);
    grouped(x, offsets, w_up, up, Write::Overwrite, inputs);
    const Index first = offsets.front(), n = offsets.back() - first;
    return swiglu_forward(gate.rows(first, n), up.rows(first, n), hidden.rows(first, n));
  }
  const Products<2> products(offsets, [&](std::size_t e, Index first, Index rows) {
    return std::array{rows_of(x, *w_gate[e], gate, first, rows, Write::Overwrite),
                      rows_of(x, *w_up[e], up, first, rows, Write::Overwrite)};
  });
  gemm::multiply(products.all(), arithmetic_for(x, *w_gate.front(), inputs),
                 [&](std::size_t product, const gemm::Tile& tile) {
                   unit(products.part(product, tile), View2<const float>(gate),
                        View2<const float>(up), hidden);
                 });
}

template <class X, class To>
void gated_backward(const X& dy, std::span<const Index> offsets, PackedSpan w_down,
                    View2<const float> gate, View2<const float> up, View2<float> dhidden,
                    View2<To> hidden, View2<To> dgate, View2<To> dup) {
  check_offsets(offsets, w_down.size(), count_rows(dy));
  const Index n = dhidden.extent(0), F = dhidden.extent(1);
  for (const View2<const float>& x : {gate, up})
    check_extents("gated_backward", "gate or up", x, {n, F});
  for (const View2<To>& x : {dgate, dup})
    check_extents("gated_backward", "dgate or dup", x, {n, F});
  if (!hidden.empty()) check_extents("gated_backward", "hidden", hidden, {n, F});
  if (w_down.empty()) return;
  const Products<1> products(offsets, [&](std::size_t e, Index first, Index rows) {
    return std::array{rows_of(dy, *w_down[e], dhidden, first, rows, Write::Overwrite)};
  });
  const auto& kernels = elementwise().to<To>();
  gemm::multiply(products.all(), arithmetic_for(dy, *w_down.front(), InputArithmetic::OfForm),
                 [&](std::size_t product, const gemm::Tile& tile) {
                   const Part part = products.part(product, tile);
                   if (!hidden.empty()) unit(part, gate, up, hidden);
                   for (Index r = 0; r < part.rows; ++r)
                     kernels.swiglu_backward(part.at(dhidden, r), part.at(gate, r), part.at(up, r),
                                             part.at(dgate, r), part.at(dup, r), part.columns);
                 });
}

template <class X>
void gated_backward_input(const X& dgate, const X& dup, std::span<const Index> offsets,
                          PackedSpan w_gate, PackedSpan w_up, View2<float> dx, Write write) {
  check_offsets(offsets, w_gate.size(), count_rows(dgate));
  check_offsets(offsets, w_up.size(), count_rows(dup));
  if (w_gate.empty()) return;
  if (!can_join(w_gate, w_up)) {
    linear_grouped(dgate, offsets, w_gate, dx, write);
    return linear_grouped(dup, offsets, w_up, dx, Write::Add);
  }
  const Products<2> products(offsets, [&](std::size_t e, Index first, Index rows) {
    return std::array{rows_of(dgate, *w_gate[e], dx, first, rows, write),
                      rows_of(dup, *w_up[e], dx, first, rows, Write::Add)};
  });
  gemm::multiply(products.all(), arithmetic_for(dgate, *w_gate.front(), InputArithmetic::OfForm));
}

#define MINKE_INSTANTIATE_TO(X, To)                                                              \
  template void gated_forward(const X&, std::span<const Index>, PackedSpan, PackedSpan,          \
                              View2<float>, View2<float>, View2<To>, InputArithmetic);           \
  template void gated_backward(const X&, std::span<const Index>, PackedSpan, View2<const float>, \
                               View2<const float>, View2<float>, View2<To>, View2<To>, View2<To>);
#define MINKE_INSTANTIATE(X)                                                                 \
  MINKE_INSTANTIATE_TO(X, float)                                                             \
  MINKE_INSTANTIATE_TO(X, BF16)                                                              \
  template void gated_backward_input(const X&, const X&, std::span<const Index>, PackedSpan, \
                                     PackedSpan, View2<float>, Write);
MINKE_INSTANTIATE(View2<const float>)
MINKE_INSTANTIATE(View2<const BF16>)
MINKE_INSTANTIATE(Fp8View)
#undef MINKE_INSTANTIATE
#undef MINKE_INSTANTIATE_TO

}  // namespace minke

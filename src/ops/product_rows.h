// The left sides of products in each of their types, and what is checked of a product. For ops/
// only.
#pragma once
#include <fmt/format.h>

#include <span>

#include "ops/gemm.h"

namespace minke {

template <class T>
void check_product(View2<const T> x, const PackedWeights& w, View2<float> y) {
  if (x.extent(1) != w.k() || y.extent(1) != w.n() || x.extent(0) != y.extent(0))
    throw ShapeError(fmt::format(
        "a product of x [{}, {}] and weights [{}, {}] into y [{}, {}]: x needs a column for each "
        "column of the weights, y a row for each row of x and a column for each row of the weights",
        x.extent(0), x.extent(1), w.n(), w.k(), y.extent(0), y.extent(1)));
}

inline void check_codes(const PackedWeights& w) {
  if (w.form() != WeightForm::E4m3)
    throw ShapeError("FP8 arithmetic needs weights in form E4M3: pack codes and scales");
}

inline void check_offsets(std::span<const Index> offsets, std::size_t groups, Index rows) {
  bool right = offsets.size() == groups + 1 && offsets.front() >= 0 && offsets.back() <= rows;
  for (std::size_t e = 0; right && e < groups; ++e) right = offsets[e] <= offsets[e + 1];
  if (!right)
    throw ShapeError(
        fmt::format("{} offsets for {} experts and {} rows; expected {} that do not "
                    "fall, from at least 0 to at most the number of rows",
                    offsets.size(), groups, rows, groups + 1));
}

// Rows [first, first + rows) of x and of y.
inline gemm::Product rows_of(View2<const float> x, const PackedWeights& w, View2<float> y,
                             Index first, Index rows, Write write) {
  check_product(x.rows(first, rows), w, y.rows(first, rows));
  return {.x = x.rows(first, rows), .w = &w, .y = y.rows(first, rows), .write = write};
}

inline gemm::Product rows_of(View2<const BF16> x, const PackedWeights& w, View2<float> y,
                             Index first, Index rows, Write write) {
  check_product(x.rows(first, rows), w, y.rows(first, rows));
  if (w.form() == WeightForm::F32 || w.form() == WeightForm::Int4)
    throw ShapeError("a product of BF16 rows needs weights in form Bf16 or E4m3");
  return {.w = &w, .y = y.rows(first, rows), .narrow_x = x.rows(first, rows), .write = write};
}

inline gemm::Product rows_of(const Fp8View& x, const PackedWeights& w, View2<float> y, Index first,
                             Index rows, Write write) {
  check_product(x.codes.rows(first, rows), w, y.rows(first, rows));
  if (w.form() == WeightForm::F32 || w.form() == WeightForm::Int4)
    throw ShapeError("a product of FP8 rows needs weights in form Bf16 or E4m3");
  MINKE_ASSERT(w.form() == WeightForm::E4m3 || powers_of_two(x.scales));
  return {.w = &w, .y = y.rows(first, rows), .x_codes = x.rows(first, rows), .write = write};
}

inline gemm::Arithmetic arithmetic_of(const PackedWeights& w) {
  return w.form() == WeightForm::E4m3 ? gemm::Arithmetic::Fp8 : gemm::Arithmetic::OfForm;
}

}  // namespace minke

// What the tests of attention share: shapes, random operands, and the forward pass over them.
#pragma once
#include <cmath>

#include "ops/attention.h"
#include "ops/test_values.h"

namespace minke::test {

struct Case {
  AttentionShape shape;
  Index T, first;
  Index S() const { return first + T; }
};

struct Inputs {
  Matrix<float> q, k, v;
  explicit Inputs(const Case& c)
      : q(Matrix<float>::random(c.T, c.shape.n_heads * c.shape.qk, 1, 1, 3)),
        k(Matrix<float>::random(c.S(), c.shape.n_kv_heads * c.shape.qk, 2, 1, 5)),
        v(Matrix<float>::random(c.S(), c.shape.n_kv_heads * c.shape.value, 3)) {}
};

struct Result {
  Matrix<float> out, lse;
  explicit Result(const Case& c)
      : out(c.T, c.shape.n_heads * c.shape.value, 2), lse(c.T, c.shape.n_heads) {}
};

inline float scale_of(const Case& c) {
  return 1 / std::sqrt(static_cast<float>(c.shape.qk));
}

inline Result forward(const Case& c, const Inputs& in) {
  Result r(c);
  attention_forward(c.shape, in.q.view(), KeyRows<float>::of(in.k.view()),
                    KeyRows<float>::of(in.v.view()), c.first, scale_of(c), r.out.view(),
                    r.lse.view());
  return r;
}

}  // namespace minke::test

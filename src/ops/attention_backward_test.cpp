#include "ops/attention_cases.h"
#include "ops/attention_kernels.h"

namespace minke {
namespace {

using test::Case;
using test::Inputs;
using test::Matrix;
using test::Result;

struct Gradients {
  Matrix<float> dq, dk, dv;
  Gradients(Index rows, const AttentionShape& s)
      : dq(rows, s.n_heads * s.qk, 1),
        dk(rows, s.n_heads * s.qk, 1),
        dv(rows, s.n_heads * s.value) {}
};

TEST(AttentionBackward, BackwardOfEveryFormAgreesWithTheDefinition) {
  const Case cases[] = {{{1, 1, 1, 1}, 1, 0},     {{3, 3, 5, 7}, 2, 0},
                        {{2, 2, 17, 16}, 17, 0},  {{2, 2, 96, 64}, 65, 0},
                        {{1, 1, 24, 12}, 130, 0}, {{2, 2, 20, 12}, 200, 0}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "qk " << c.shape.qk << " T " << c.T);
    const AttentionShape& s = c.shape;
    const Inputs in(c);
    const Matrix<float> dout = Matrix<float>::random(c.T, s.n_heads * s.value, 4);
    const Matrix<double> q = in.q.as<double>(), k = in.k.as<double>(), v = in.v.as<double>();
    const Matrix<double> wide_dout = dout.as<double>();
    Matrix<double> out(c.T, s.n_heads * s.value), lse(c.T, s.n_heads);
    Matrix<double> dq(c.T, s.n_heads * s.qk), dk = dq, dv = out;
    const double scale = static_cast<double>(scale_of(c));
    reference::attention_forward<double>(s, q.view(), k.view(), v.view(), 0, scale, out.view(),
                                         lse.view());
    reference::attention_backward<double>(s, q.view(), k.view(), v.view(), out.view(), lse.view(),
                                          wide_dout.view(), scale, dq.view(), dk.view(), dv.view());
    test::on_every_isa([&] {
      const Result r = forward(c, in);
      Gradients g(c.T, s);
      attention_backward(s, in.q.view(), in.k.view(), in.v.view(), r.out.view(), r.lse.view(),
                         dout.view(), scale_of(c), g.dq.view(), g.dk.view(), g.dv.view());
      // Sums of up to T terms of some units, each right to about 1e-6.
      test::expect_near(g.dq, dq, 3e-5, 1e-5, "dq");
      test::expect_near(g.dk, dk, 3e-5, 1e-5, "dk");
      test::expect_near(g.dv, dv, 3e-5, 1e-5, "dv");
    });
  }
}

// sqrt(sum (a - b)^2 / sum b^2)
double relative_error(const Matrix<float>& a, const Matrix<double>& b) {
  double difference = 0, size = 0;
  for (Index r = 0; r < b.rows; ++r)
    for (Index c = 0; c < b.columns; ++c) {
      const double d = static_cast<double>(a(r, c)) - b(r, c);
      difference += d * d, size += b(r, c) * b(r, c);
    }
  return std::sqrt(difference / size);
}

// Operands in BF16, in rows that lie apart: forward with log-sum-exp, and backward.
struct RoundedPass {
  Matrix<BF16> q, k, v;
  Matrix<float> dout;
  RoundedPass(const AttentionShape& s, Index rows)
      : q(Matrix<float>::random(rows, s.n_heads * s.qk, 1).as<BF16>()),
        k(Matrix<float>::random(rows, s.n_heads * s.qk, 2).as<BF16>()),
        v(Matrix<float>::random(rows, s.n_heads * s.value, 3).as<BF16>()),
        dout(Matrix<float>::random(rows, s.n_heads * s.value, 4)) {}

  void run(const AttentionShape& s, std::span<const Index> offsets, Result& r, Gradients& g) const {
    const double scale = 1 / std::sqrt(static_cast<double>(s.qk));
    attention_forward_batch(s, offsets, q.view(), k.view(), v.view(), scale, r.out.view(),
                            r.lse.view());
    attention_backward_batch(s, offsets, q.view(), k.view(), v.view(), r.out.view(), r.lse.view(),
                             dout.view(), scale, g.dq.view(), g.dk.view(), g.dv.view());
  }
};

TEST(AttentionBackward, OperandsInBf16AgreeWithTheDefinitionOnEveryForm) {
  const Case cases[] = {{{1, 1, 1, 1}, 1, 0},     {{3, 3, 5, 7}, 3, 0},
                        {{2, 2, 17, 16}, 17, 0},  {{2, 2, 96, 64}, 65, 0},
                        {{1, 1, 24, 12}, 130, 0}, {{2, 2, 20, 13}, 203, 0},
                        {{2, 2, 192, 128}, 97, 0}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "qk " << c.shape.qk << " T " << c.T);
    const AttentionShape& s = c.shape;
    const RoundedPass pass(s, c.T);
    const Matrix<double> q = pass.q.as<float>().as<double>(), k = pass.k.as<float>().as<double>(),
                         v = pass.v.as<float>().as<double>(), dout = pass.dout.as<double>();
    Matrix<double> out(c.T, s.n_heads * s.value), lse(c.T, s.n_heads);
    Matrix<double> dq(c.T, s.n_heads * s.qk), dk = dq, dv = out;
    const double scale = 1 / std::sqrt(static_cast<double>(s.qk));
    reference::attention_forward<double>(s, q.view(), k.view(), v.view(), 0, scale, out.view(),
                                         lse.view());
    reference::attention_backward<double>(s, q.view(), k.view(), v.view(), out.view(), lse.view(),
                                          dout.view(), scale, dq.view(), dk.view(), dv.view());
    test::on_every_isa([&] {
      Result r(c);
      Gradients g(c.T, s);
      const std::vector<Index> offsets{0, c.T};
      pass.run(s, offsets, r, g);
      if (!attention_kernels().pairs) {  // nothing is rounded
        test::expect_near(r.lse, lse, 4e-6, 1e-6, "lse");
        test::expect_near(g.dq, dq, 3e-5, 1e-5, "dq");
        test::expect_near(g.dk, dk, 3e-5, 1e-5, "dk");
        test::expect_near(g.dv, dv, 3e-5, 1e-5, "dv");
        return;
      }
      // Probabilities, dout and ds are rounded, 2^-9 each at most. dp - delta is a difference, in
      // which the rounding of dp, a sum of `value` terms, counts up to some times.
      test::expect_near(r.lse, lse, 1e-5, 1e-5, "lse");
      EXPECT_LT(relative_error(r.out, out), 0x1p-8);
      EXPECT_LT(relative_error(g.dv, dv), 0x1p-8);
      if (c.T == 1) return;  // dq and dk are zero
      EXPECT_LT(relative_error(g.dq, dq), 0x1p-7);
      EXPECT_LT(relative_error(g.dk, dk), 0x1p-7);
    });
  }
}

TEST(AttentionBackward, ABatchInBf16GivesTheBitsOfSingleCallsOnAnyThreads) {
  const AttentionShape s{3, 3, 24, 20};
  const std::vector<Index> offsets{0, 70, 71, 71, 200};  // one row; none
  const Case all{s, offsets.back(), 0};
  const RoundedPass pass(s, all.T);
  test::on_every_isa([&] {
    Result single(all);
    Gradients single_g(all.T, s);
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
      const Index n = offsets[b + 1] - offsets[b];
      const std::vector<Index> one{0, n};
      if (n == 0) continue;
      const auto of = [&](auto&& m) { return m.view().rows(offsets[b], n); };
      const double scale = 1 / std::sqrt(24.0);
      attention_forward_batch(s, one, of(pass.q), of(pass.k), of(pass.v), scale, of(single.out),
                              of(single.lse));
      attention_backward_batch(s, one, of(pass.q), of(pass.k), of(pass.v),
                               View2<const float>(of(single.out)),
                               View2<const float>(of(single.lse)), of(pass.dout), scale,
                               of(single_g.dq), of(single_g.dk), of(single_g.dv));
    }
    for (const int threads : {1, 3}) {
      set_threads(threads);
      Result r(all);
      Gradients g(all.T, s);
      pass.run(s, offsets, r, g);
      test::expect_same_bits(r.out, single.out, "out");
      test::expect_same_bits(r.lse, single.lse, "lse");
      test::expect_same_bits(g.dq, single_g.dq, "dq");
      test::expect_same_bits(g.dk, single_g.dk, "dk");
      test::expect_same_bits(g.dv, single_g.dv, "dv");
    }
    set_threads(available_cores());
  });
}

TEST(AttentionBackward, ABatchOfSequencesGivesTheBitsOfSingleCallsOnAnyThreads) {
  const AttentionShape s{3, 3, 24, 20};
  const std::vector<Index> offsets{0, 70, 71, 71, 200};  // one row; none
  const Index rows = offsets.back();
  const Case all{s, rows, 0};
  const Inputs in(all);
  const Matrix<float> dout = Matrix<float>::random(rows, 3 * 20, 4);
  Result single(all);
  Gradients single_g(rows, s);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    if (offsets[b + 1] == offsets[b]) continue;
    const auto of = [&](auto&& m) {
      return m.view().rows(offsets[b], offsets[b + 1] - offsets[b]);
    };
    attention_forward(s, of(in.q), KeyRows<float>::of(of(in.k)), KeyRows<float>::of(of(in.v)), 0,
                      0.2f, of(single.out), of(single.lse));
    attention_backward(s, of(in.q), of(in.k), of(in.v), of(single.out), of(single.lse), of(dout),
                       0.2f, of(single_g.dq), of(single_g.dk), of(single_g.dv));
  }
  for (const int threads : {1, 2, 3}) {
    set_threads(threads);
    Result r(all);
    Gradients g(rows, s);
    attention_forward_batch(s, offsets, in.q.view(), in.k.view(), in.v.view(), 0.2f, r.out.view(),
                            r.lse.view());
    attention_backward_batch(s, offsets, in.q.view(), in.k.view(), in.v.view(), r.out.view(),
                             r.lse.view(), dout.view(), 0.2f, g.dq.view(), g.dk.view(),
                             g.dv.view());
    test::expect_same_bits(r.out, single.out, "out");
    test::expect_same_bits(r.lse, single.lse, "lse");
    test::expect_same_bits(g.dq, single_g.dq, "dq");
    test::expect_same_bits(g.dk, single_g.dk, "dk");
    test::expect_same_bits(g.dv, single_g.dv, "dv");
  }
  set_threads(available_cores());
}

TEST(AttentionBackward, OffsetsThatDoNotCutTheRowsThrow) {
  const AttentionShape s{1, 1, 4, 4};
  const Inputs in({s, 6, 0});
  Result r({s, 6, 0});
  for (const std::vector<Index>& offsets :
       std::vector<std::vector<Index>>{{}, {0, 5}, {1, 6}, {0, 4, 3, 6}, {0, 7}})
    EXPECT_THROW(attention_forward_batch(s, offsets, in.q.view(), in.k.view(), in.v.view(), 0.2,
                                         r.out.view(), r.lse.view()),
                 ShapeError);
}

TEST(AttentionBackward, GradientsAgreeWithCentralDifferences) {
  const AttentionShape s{2, 2, 3, 2};
  const Index T = 5;
  const double scale = 0.7;
  auto q = Matrix<double>::random(T, 6, 1), k = Matrix<double>::random(T, 6, 2);
  auto v = Matrix<double>::random(T, 4, 3);
  const auto dout = Matrix<double>::random(T, 4, 4);
  Matrix<double> out(T, 4), lse(T, 2), dq(T, 6), dk(T, 6), dv(T, 4);
  const auto loss = [&] {
    reference::attention_forward<double>(s, q.view(), k.view(), v.view(), 0, scale, out.view(),
                                         lse.view());
    return test::weighted_sum(out, dout);
  };
  loss();
  reference::attention_backward<double>(s, q.view(), k.view(), v.view(), out.view(), lse.view(),
                                        dout.view(), scale, dq.view(), dk.view(), dv.view());
  test::expect_gradient(q.data, dq.data, loss);
  test::expect_gradient(k.data, dk.data, loss);
  test::expect_gradient(v.data, dv.data, loss);
}

}  // namespace
}  // namespace minke

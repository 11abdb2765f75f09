#include "ops/gated_products.h"

#include "ops/permute.h"
#include "ops/swiglu.h"
#include "ops/test_weights.h"

namespace minke {
namespace {

using test::Matrix;
using test::random_weights;

const std::vector<Index> kOffsets{1, 1,   4,
                                  5, 210, 210};  // row 0 and those from 210 on are nobody's
constexpr Index kRows = 212;

// A matrix for each expert.
struct Experts {
  std::vector<PackedWeights> all;
  std::vector<const PackedWeights*> packs;

  Experts(Index n, Index k, std::vector<WeightForm> forms, std::uint64_t seed) {
    for (std::size_t e = 0; e + 1 < kOffsets.size(); ++e)
      all.push_back(random_weights(n, k, forms[e % forms.size()], seed + e));
    for (const PackedWeights& w : all) packs.push_back(&w);
  }
};

Matrix<BF16> rounded(const Matrix<float>& x) {
  Matrix<BF16> y(x.rows, x.columns);
  copy(x.view(), y.view());
  return y;
}

template <class T>
void expect_same(const Matrix<T>& have, const Matrix<T>& want, const char* what) {
  test::expect_same_bits(have, want, what);
}

// Whether products and units in one give what they give one after another; `single` multiplies.
template <class To, class X, class Single>
void expect_forward(const X& x, Index D, Index F, const std::vector<WeightForm>& gate_forms,
                    const std::vector<WeightForm>& up_forms, InputArithmetic arithmetic,
                    Single single) {
  const Experts w_gate(F, D, gate_forms, 10), w_up(F, D, up_forms, 30);
  Matrix<float> gate(kRows, F), up(kRows, F), want_gate(kRows, F), want_up(kRows, F);
  Matrix<To> hidden(kRows, F, 3), want(kRows, F);
  gated_forward(x, kOffsets, w_gate.packs, w_up.packs, gate.view(), up.view(), hidden.view(),
                arithmetic);
  single(w_gate.packs, want_gate.view());
  single(w_up.packs, want_up.view());
  const Index first = kOffsets.front(), n = kOffsets.back() - first;
  swiglu_forward(want_gate.view().rows(first, n), want_up.view().rows(first, n),
                 want.view().rows(first, n));
  expect_same(gate, want_gate, "gate");
  expect_same(up, want_up, "up");
  for (Index r = 0; r < kRows; ++r)
    for (Index c = 0; c < F; ++c)
      ASSERT_EQ(float(hidden(r, c)), float(want(r, c))) << r << ", " << c;
}

TEST(GatedProducts, ForwardIsTheProductsAndThenTheUnit) {
  using enum WeightForm;
  test::on_every_isa([] {
    for (const Index F : {5, 200, 516})
      for (const Index D : {33, 160}) {
        const auto x = Matrix<float>::random(kRows, D, 1);
        const auto narrow = rounded(x);
        const auto plain = [&](auto packs, View2<float> y) {
          linear_grouped(x.view(), kOffsets, packs, y);
        };
        for (const std::vector<WeightForm>& forms :
             {std::vector{F32}, std::vector{Bf16}, std::vector{E4m3}, std::vector{E4m3, Bf16}})
          expect_forward<float>(x.view(), D, F, forms, forms, InputArithmetic::OfForm, plain);
        expect_forward<float>(x.view(), D, F, {E4m3}, {Bf16}, InputArithmetic::OfForm, plain);
        expect_forward<BF16>(x.view(), D, F, {Bf16}, {Bf16}, InputArithmetic::OfForm, plain);
        expect_forward<BF16>(std::as_const(narrow).view(), D, F, {Bf16}, {Bf16},
                             InputArithmetic::OfForm, plain);
        expect_forward<float>(
            x.view(), D, F, {E4m3}, {E4m3}, InputArithmetic::QuantizedToFp8,
            [&](auto packs, View2<float> y) { linear_fp8_grouped(x.view(), kOffsets, packs, y); });
        const Fp8Rows codes = fp8_rows(x.view(), ScaleForm::Float);
        expect_forward<float>(
            codes.view(), D, F, {E4m3}, {E4m3}, InputArithmetic::OfForm,
            [&](auto packs, View2<float> y) { linear_grouped(codes.view(), kOffsets, packs, y); });
      }
  });
}

template <class To>
void expect_backward(Index D, Index F, bool again) {
  const auto dy = Matrix<float>::random(kRows, D, 1);
  const auto gate = Matrix<float>::random(kRows, F, 2), up = Matrix<float>::random(kRows, F, 3);
  const Experts w(F, D, {WeightForm::Bf16}, 50);
  Matrix<float> dhidden(kRows, F), want_dhidden(kRows, F);
  Matrix<To> hidden(kRows, F), dgate(kRows, F), dup(kRows, F);
  Matrix<float> want_hidden(kRows, F), want_dgate(kRows, F), want_dup(kRows, F);
  gated_backward(dy.view(), kOffsets, w.packs, gate.view(), up.view(), dhidden.view(),
                 again ? hidden.view() : View2<To>(), dgate.view(), dup.view());
  linear_grouped(dy.view(), kOffsets, w.packs, want_dhidden.view());
  const Index first = kOffsets.front(), n = kOffsets.back() - first;
  const auto of = [&](auto x) { return x.rows(first, n); };
  if (again) swiglu_forward(of(gate.view()), of(up.view()), of(want_hidden.view()));
  swiglu_backward_input(View2<const float>(of(want_dhidden.view())), of(gate.view()), of(up.view()),
                        of(want_dgate.view()), of(want_dup.view()));
  for (Index r = 0; r < kRows; ++r)
    for (Index c = 0; c < F; ++c) {
      ASSERT_EQ(float(hidden(r, c)), float(To(want_hidden(r, c)))) << r << ", " << c;
      ASSERT_EQ(float(dgate(r, c)), float(To(want_dgate(r, c)))) << r << ", " << c;
      ASSERT_EQ(float(dup(r, c)), float(To(want_dup(r, c)))) << r << ", " << c;
    }
  // In the memory of what is no longer needed.
  if constexpr (std::is_same_v<To, float>) {
    Matrix<float> a = gate, b = up;
    gated_backward(dy.view(), kOffsets, w.packs, View2<const float>(a.view()),
                   View2<const float>(b.view()), dhidden.view(), View2<float>(), a.view(),
                   b.view());
    for (Index r = first; r < first + n; ++r)
      for (Index c = 0; c < F; ++c) ASSERT_EQ(a(r, c), want_dgate(r, c));
  }
}

TEST(GatedProducts, BackwardIsTheProductAndThenTheUnits) {
  test::on_every_isa([] {
    for (const bool again : {false, true}) {
      expect_backward<float>(70, 130, again);
      expect_backward<BF16>(160, 516, again);
    }
  });
}

TEST(GatedProducts, BothBranchesAddUp) {
  using enum WeightForm;
  test::on_every_isa([] {
    const Index D = 140, F = 300;
    const auto dgate = Matrix<float>::random(kRows, F, 1), dup = Matrix<float>::random(kRows, F, 2);
    const auto before = Matrix<float>::random(kRows, D, 3);
    for (const WeightForm up_form : {Bf16, F32})
      for (const Write write : {Write::Overwrite, Write::Add}) {
        const Experts w_gate(D, F, {Bf16}, 70), w_up(D, F, {up_form}, 80);
        Matrix<float> dx = before, want = before;
        gated_backward_input(dgate.view(), dup.view(), kOffsets, w_gate.packs, w_up.packs,
                             dx.view(), write);
        linear_grouped(dgate.view(), kOffsets, w_gate.packs, want.view(), write);
        linear_grouped(dup.view(), kOffsets, w_up.packs, want.view(), Write::Add);
        expect_same(dx, want, "dx");
      }
  });
}

TEST(GatedProducts, TheBitsAreThoseOfAnyNumberOfThreads) {
  const int threads = n_threads();
  const auto x = Matrix<float>::random(kRows, 160, 1);
  const Experts w_gate(516, 160, {WeightForm::Bf16}, 1), w_up(516, 160, {WeightForm::Bf16}, 9);
  Matrix<float> gate(kRows, 516), up(kRows, 516);
  std::vector<Matrix<float>> hidden(3, Matrix<float>(kRows, 516));
  for (int n = 1; n <= 3; ++n) {
    set_threads(n);
    gated_forward(x.view(), kOffsets, w_gate.packs, w_up.packs, gate.view(), up.view(),
                  hidden[static_cast<std::size_t>(n) - 1].view());
  }
  set_threads(threads);
  expect_same(hidden[1], hidden[0], "two threads");
  expect_same(hidden[2], hidden[0], "three threads");
}

TEST(GatedProducts, ExtentsThatDisagreeAreRefused) {
  const auto x = Matrix<float>::random(kRows, 32, 1);
  const Experts w(48, 32, {WeightForm::Bf16}, 1), other(64, 32, {WeightForm::Bf16}, 9);
  Matrix<float> gate(kRows, 48), up(kRows, 48), hidden(kRows, 48);
  EXPECT_THROW(gated_forward(x.view(), kOffsets, w.packs, other.packs, gate.view(), up.view(),
                             hidden.view()),
               ShapeError);
  EXPECT_THROW(gated_forward(x.view(), kOffsets, w.packs, w.packs, gate.view(), up.view(),
                             hidden.view(), InputArithmetic::QuantizedToFp8),
               ShapeError);
}

}  // namespace
}  // namespace minke

#include "ops/adamw.h"

#include <set>

#include "golden_reader.h"
#include "ops/test_values.h"

namespace minke {
namespace {

using test::Matrix;

const AdamW kSettings{.lr = 1e-2, .weight_decay = 0.1, .step = 3, .gradient_scale = 0.5f};

TEST(AdamW, EveryFormAgreesWithTheDefinition) {
  for (const Index n : {0, 1, 15, 16, 17, 100}) {
    SCOPED_TRACE(n);
    const auto g = Matrix<float>::random(1, n, 1), w = Matrix<float>::random(1, n, 2);
    const auto m = Matrix<float>::random(1, n, 3, 0.1);
    auto v = Matrix<float>::random(1, n, 4, 0.1);
    for (float& x : v.data) x = x * x;
    auto ww = w.as<double>(), wm = m.as<double>(), wv = v.as<double>();
    const auto wg = g.as<double>();
    reference::adamw_update<double>(kSettings, wg.flat(), ww.flat(), wm.flat(), wv.flat());
    test::on_every_isa([&] {
      auto fw = w, fm = m, fv = v;
      adamw_update(kSettings, g.flat(), fw.flat(), fm.flat(), fv.flat());
      test::expect_near(fw, ww, 1e-6, 1e-6, "w");
      test::expect_near(fm, wm, 1e-8, 1e-6, "m");
      test::expect_near(fv, wv, 1e-9, 1e-6, "v");
    });
  }
}

TEST(AdamW, NarrowMomentsAreUpdatedInFp32AndRoundedOnce) {
  const Index n = 77;
  const auto g = Matrix<float>::random(1, n, 1);
  test::on_every_isa([&] {
    auto w = Matrix<float>::random(1, n, 2), m = Matrix<float>::random(1, n, 3, 0.1), v = m;
    std::vector<BF16> narrow_m, narrow_v;
    for (Index i = 0; i < n; ++i) {
      m(0, i) = round_to_bf16(m(0, i));
      v(0, i) = round_to_bf16(m(0, i) * m(0, i));
      narrow_m.emplace_back(m(0, i));
      narrow_v.emplace_back(v(0, i));
    }
    auto narrow_w = w;
    adamw_update(kSettings, g.flat(), w.flat(), m.flat(), v.flat());
    adamw_update(kSettings, g.flat(), narrow_w.flat(), View1<BF16>(narrow_m.data(), {n}),
                 View1<BF16>(narrow_v.data(), {n}));
    test::expect_same_bits(narrow_w, w);
    for (Index i = 0; i < n; ++i) {
      EXPECT_EQ(narrow_m[static_cast<std::size_t>(i)].bits, BF16(m(0, i)).bits);
      EXPECT_EQ(narrow_v[static_cast<std::size_t>(i)].bits, BF16(v(0, i)).bits);
    }
  });
}

// The update itself is in double: only what is kept of the moments is rounded.
template <class Moment>
void expect_moments_rounded_once(double rounding) {
  const Index n = 33;
  const auto g = Matrix<double>::random(1, n, 1);
  auto w = Matrix<double>::random(1, n, 2), m = w, v = w;
  std::vector<Moment> narrow_m, narrow_v;
  for (Index i = 0; i < n; ++i) {
    narrow_m.emplace_back(static_cast<float>(0.1 * g(0, i)));
    narrow_v.emplace_back(static_cast<float>(0.1 * g(0, i) * g(0, i)));
    m(0, i) = static_cast<double>(narrow_m.back());
    v(0, i) = static_cast<double>(narrow_v.back());
  }
  auto narrow_w = w;
  adamw_update(kSettings, g.flat(), w.flat(), m.flat(), v.flat());
  adamw_update(kSettings, g.flat(), narrow_w.flat(), View1<Moment>(narrow_m.data(), {n}),
               View1<Moment>(narrow_v.data(), {n}));
  test::expect_same_bits(narrow_w, w);
  for (Index i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_NEAR(static_cast<double>(narrow_m[at]), m(0, i), rounding * std::abs(m(0, i)));
    EXPECT_NEAR(static_cast<double>(narrow_v[at]), v(0, i), rounding * v(0, i));
  }
}

TEST(AdamW, InDoubleNarrowMomentsAreRoundedOnce) {
  expect_moments_rounded_once<float>(0x1p-24);
  expect_moments_rounded_once<BF16>(0x1.01p-8);  // BF16 is reached by way of FP32
}

TEST(AdamW, SumOfSquaresIsTheSameOnAnyThreads) {
  const auto x = Matrix<float>::random(1, 200001, 1);
  double expected = 0;
  for (float v : x.data) expected += static_cast<double>(v) * static_cast<double>(v);
  test::on_every_isa([&] {
    std::set<double> sums;
    for (const int threads : {1, 2, 3}) {
      set_threads(threads);
      sums.insert(sum_of_squares(x.flat()));
    }
    set_threads(available_cores());
    EXPECT_EQ(sums.size(), 1u);
    EXPECT_NEAR(*sums.begin() / expected, 1, 1e-12);
  });
}

TEST(AdamWGolden, OneStepFromTheGoldenGradients) {
  const test::GoldenFile expected("train-step/expected.safetensors");
  const test::GoldenFile model("train-step/model.safetensors");
  const auto hyper = test::golden_json("train-step/expected.json").at("hyper_parameters");
  double squares = 0;
  std::vector<std::string> names;
  for (const std::string& name : model.names())
    if (expected.has("grad." + name)) {
      names.push_back(name);
      const auto g = expected.numbers<float>("grad." + name);
      squares += sum_of_squares(View1<const float>(g.data(), {static_cast<Index>(g.size())}));
    }
  ASSERT_GT(names.size(), 50u);
  const double norm = std::sqrt(squares);
  EXPECT_NEAR(norm / expected.numbers("step1.grad_norm")[0], 1, 2e-6);
  const double lr = hyper.at("lr");
  Index total = 0, beyond = 0;
  for (const std::string& name : names) {
    const bool is_matrix = expected.shape("grad." + name).size() == 2;
    const AdamW settings{.lr = lr,
                         .beta1 = hyper.at("beta1"),
                         .beta2 = hyper.at("beta2"),
                         .eps = hyper.at("eps"),
                         .weight_decay = is_matrix ? hyper.at("weight_decay").get<double>() : 0,
                         .step = 1,
                         .gradient_scale = static_cast<float>(
                             std::min(1.0, hyper.at("clip").get<double>() / (norm + 1e-6)))};
    auto w = model.numbers<float>(name);
    const auto g = expected.numbers<float>("grad." + name);
    const auto after = expected.numbers("step1." + name);
    const Index n = static_cast<Index>(w.size());
    std::vector<float> m(w.size()), v(w.size());
    adamw_update(settings, View1<const float>(g.data(), {n}), View1<float>(w.data(), {n}),
                 View1<float>(m.data(), {n}), View1<float>(v.data(), {n}));
    for (std::size_t i = 0; i < w.size(); ++i, ++total) {
      const double difference = std::abs(static_cast<double>(w[i]) - after[i]);
      if (difference > 1e-5) ++beyond;
      EXPECT_LE(difference, 2 * lr) << name << " " << i;
    }
  }
  EXPECT_LE(beyond * 1000, total);
}

}  // namespace
}  // namespace minke

#include "train/ema.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "model/small_model.h"

namespace minke {
namespace {

float last_of_head(const ModelParameters<Tensor>& p) {
  return p.lm_head.flat()(p.lm_head.size() - 1);
}

// Against the sum in the header, element by element.
TEST(Ema, IsTheWeightedMeanOfTheWeightsAfterEachUpdate) {
  const ModelConfig config = small_config(1);
  const double d = 0.75;
  Ema ema = begin_ema(config, d, DType::F32);
  double sum = 0, total = 0;
  for (int n = 1; n <= 6; ++n) {
    ModelParameters<Tensor> w = small_parameters(config, static_cast<std::uint64_t>(n));
    update_ema(config, w, n, ema);
    sum = d * sum + (1 - d) * static_cast<double>(last_of_head(w));
    total = d * total + (1 - d);
    // Six roundings of a sum of about one.
    EXPECT_NEAR(last_of_head(ema.weights), sum / total, 6 * 0x1p-24) << n;
    EXPECT_EQ(ema.weights.layers[1].moe.e_score_correction_bias.dtype(), DType::F32);
  }
}

TEST(Ema, RoundsByChanceWithoutBias) {
  EXPECT_EQ(static_cast<float>(round_by_chance(1.5f, 0xFFFF)), 1.5f);
  EXPECT_EQ(static_cast<float>(round_by_chance(-1.5f, 0)), -1.5f);
  // A quarter of the way from 1 to the next BF16 number.
  const float x = 1 + 0.25f * 0x1p-7f;
  int up = 0;
  for (std::uint64_t r = 0; r < 0x10000; ++r) {
    const auto y = static_cast<float>(round_by_chance(x, r));
    ASSERT_TRUE(y == 1.0f || y == 1 + 0x1p-7f);
    up += y > 1;
  }
  EXPECT_EQ(up, 0x4000);
  EXPECT_LT(static_cast<float>(round_by_chance(-x, 0xFFFF)), -1.0f);
}

// Rounded to nearest, the average would stay at its first value for ever.
TEST(Ema, InBf16FollowsSlowly) {
  const ModelConfig config = small_config(1);
  ModelParameters<Tensor> w = zero_parameters(config);
  Ema ema = begin_ema(config, 0.999, DType::BF16);
  const auto set = [&](float value) {
    const View1<float> x = w.lm_head.flat();
    for (Index i = 0; i < x.size(); ++i) x(i) = value;
  };
  set(1.0f);
  update_ema(config, w, 1, ema);
  EXPECT_EQ(static_cast<float>(ema.weights.lm_head.flat<BF16>()(0)), 1.0f);
  // n far beyond the beginning, where the rate is 0.001.
  set(1.5f);
  const int updates = 200;
  for (int n = 0; n < updates; ++n) update_ema(config, w, 100000 + n, ema);
  ModelParameters<Tensor> wide;
  const View1<const float> x = std::as_const(ema_in_fp32(config, ema, wide).lm_head).flat();
  double mean = 0;
  for (Index i = 0; i < x.size(); ++i) mean += x(i) / static_cast<double>(x.size());
  const double expected = 1.5 - 0.5 * std::pow(0.999, updates);
  // A step is up (2^-7) with chance p <= 0.0005 / 2^-7, so its variance is at most 2^-7 0.0005.
  const double deviation = std::sqrt(updates * 0x1p-7 * 0.0005 / static_cast<double>(x.size()));
  EXPECT_NEAR(mean, expected, 6 * deviation);
}

TEST(Ema, SameBitsOnAnyThreads) {
  const ModelConfig config = small_config(1);
  for (DType dtype : {DType::F32, DType::BF16}) {
    std::vector<Ema> all;
    for (int threads : {1, 2}) {
      set_threads(threads);
      Ema ema = begin_ema(config, 0.9, dtype);
      for (int n = 1; n <= 3; ++n) {
        ModelParameters<Tensor> w = small_parameters(config, static_cast<std::uint64_t>(n));
        update_ema(config, w, n, ema);
      }
      all.push_back(std::move(ema));
    }
    set_threads(available_cores());
    const auto a = list_parameters(config, all[0].weights),
               b = list_parameters(config, all[1].weights);
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_EQ(0, std::memcmp(a[i].leaf->raw(), b[i].leaf->raw(), a[i].leaf->bytes()))
          << a[i].spec.name;
  }
}

}  // namespace
}  // namespace minke

#include "model/weights.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "model/small_model.h"

namespace minke {
namespace {

TEST(Weights, RefreshEqualsPackingAnew) {
  const ModelConfig c = small_config();
  ModelParameters<Tensor> before = small_parameters(c, 1), after = small_parameters(c, 2);
  using Case = std::pair<Compute, ScaleForm>;
  for (const auto& [compute, scales] :
       {Case{Compute::Fp32, {}}, Case{Compute::Bf16, {}}, Case{Compute::Fp8, ScaleForm::Float},
        Case{Compute::Fp8, ScaleForm::PowerOfTwo}}) {
    TrainingForm form;
    form.fp8_scales = scales;
    Model refreshed = make_training_model(c, before, compute, form);
    refresh(refreshed, after);
    Model fresh = make_training_model(c, after, compute, form);
    EXPECT_EQ(refreshed.fp8_weights, fresh.fp8_weights);
    const auto a = list_parameters(c, refreshed.weights), b = list_parameters(c, fresh.weights);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const Weight &x = *a[i].leaf, &y = *b[i].leaf;
      if (!x.forward.defined()) {
        EXPECT_EQ(0, std::memcmp(x.dense.raw(), y.dense.raw(), x.dense.bytes())) << a[i].spec.name;
        continue;
      }
      const Tensor forward = random_tensor({3, x.forward.k()}, 3);
      const Tensor backward = random_tensor({3, x.forward.n()}, 4);
      Tensor y1 = Tensor::zeros({3, x.forward.n()}), y2 = y1.clone();
      Tensor x1 = Tensor::zeros({3, x.forward.k()}), x2 = x1.clone();
      apply(x, forward.v2(), y1.v2());
      apply(y, forward.v2(), y2.v2());
      apply_transposed(x, backward.v2(), x1.v2());
      apply_transposed(y, backward.v2(), x2.v2());
      EXPECT_EQ(0, std::memcmp(y1.raw(), y2.raw(), y1.bytes())) << a[i].spec.name;
      EXPECT_EQ(0, std::memcmp(x1.raw(), x2.raw(), x1.bytes())) << a[i].spec.name;
    }
  }
}

TEST(Weights, ComputeNames) {
  for (Compute compute : {Compute::Fp32, Compute::Bf16, Compute::Fp8})
    EXPECT_EQ(parse_compute(name_of(compute)), compute);
  EXPECT_THROW(parse_compute("int4"), ConfigError);
}

TEST(Weights, Fp8NeedsSwigluComputedAgain) {
  const ModelConfig c = small_config();
  ModelParameters<Tensor> p = small_parameters(c);
  TrainingForm keeps_it;
  keeps_it.recompute.swiglu = false;
  EXPECT_THROW(make_training_model(c, p, Compute::Fp8, keeps_it), ConfigError);
  EXPECT_NO_THROW(make_training_model(c, p, Compute::Bf16, keeps_it));
}

}  // namespace
}  // namespace minke

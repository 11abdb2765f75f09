// Training in FP8, and what the backward pass computes again.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "model/small_model.h"
#include "model/training_pass.h"
#include "ops/isa.h"

namespace minke {
namespace {

TrainingForm form_of(ScaleForm scales, Recompute recompute = {}) {
  TrainingForm form;
  form.fp8_scales = scales;
  form.recompute = recompute;
  return form;
}

// Sizes that leave ragged tiles behind whole ones.
ModelConfig tiled_config() {
  ModelConfig c = small_config();
  c.hidden_size = 136;
  c.intermediate_size = 150;
  c.moe_intermediate_size = 130;
  c.initializer_range = 0.08;
  c.check("tiled_config");
  return c;
}

struct Trainable {
  ModelConfig config = tiled_config();
  ModelParameters<Tensor> masters = small_parameters(config);
  Tensor tokens = random_tokens(10, 31, config.vocab_size, 11);

  View2<const std::int32_t> view() const { return tokens.view<std::int32_t, 2>(); }
  Model model(Compute compute, const TrainingForm& form = {}) {
    return make_training_model(config, masters, compute, form);
  }
  // Of queries, keys and values in every layer and MTP module; the k-th module has k positions
  // less.
  double bytes_of_heads(Compute compute) const {
    const ModelConfig& c = config;
    const Index B = tokens.extent(0), T = B * (tokens.extent(1) - 1);
    Index rows = c.num_hidden_layers * T;
    for (Index k = 1; k <= c.num_nextn_predict_layers; ++k) rows += T - k * B;
    const Index numbers = c.num_attention_heads * (2 * c.qk_head_dim() + c.v_head_dim);
    return static_cast<double>(rows * numbers * (compute == Compute::Fp32 ? 4 : 2));
  }
  PassResult pass(const Model& model, ModelGradients& gradients) const {
    gradients = zero_parameters(config);
    return forward_backward(model, view(), {.alpha = 0.01}, gradients);
  }
};

void expect_same_bits(const ModelConfig& c, ModelGradients& a, ModelGradients& b) {
  const auto x = list_parameters(c, a), y = list_parameters(c, b);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_EQ(0, std::memcmp(x[i].leaf->raw(), y[i].leaf->raw(), x[i].leaf->bytes()))
        << x[i].spec.name;
}

constexpr ScaleForm kScales[] = {ScaleForm::Float, ScaleForm::PowerOfTwo};

// Rounding to three bits of mantissa has a relative error of 2^-4 / sqrt(3) / sqrt(2) at most in
// the mean square, about 0.026: a product of two rounded operands 0.037, and some 40 products in a
// row, forward and backward through four blocks, 0.23, which is a cosine of 0.97. Twice that noise
// is 0.91. No experts: where rounding turns a choice, gradients jump.
TEST(Fp8Training, LossAndGradientsAreNearFullPrecision) {
  Trainable s;
  s.config.first_k_dense_replace = s.config.num_hidden_layers + 1;
  s.masters = small_parameters(s.config);
  ModelGradients exact, have;
  const PassResult full = s.pass(s.model(Compute::Fp32), exact);
  for (ScaleForm scales : kScales) {
    const PassResult r = s.pass(s.model(Compute::Fp8, form_of(scales)), have);
    EXPECT_NEAR(r.main, full.main, 0.02 * full.main);
    EXPECT_NE(r.main, full.main);
    const auto a = list_parameters(s.config, have), b = list_parameters(s.config, exact);
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_GT(cosine(*a[i].leaf, *b[i].leaf), 0.91) << a[i].spec.name;
    }
  }
}

TEST(Fp8Training, SameBitsOnAnyNumberOfThreads) {
  Trainable s;
  for (ScaleForm scales : kScales) {
    const Model model = s.model(Compute::Fp8, form_of(scales));
    ModelGradients one, more;
    set_threads(1);
    const PassResult first = s.pass(model, one);
    set_threads(2);
    const PassResult second = s.pass(model, more);
    set_threads(available_cores());
    EXPECT_EQ(first.total, second.total);
    expect_same_bits(s.config, one, more);
    ASSERT_EQ(first.fp8.size(), second.fp8.size());
    for (std::size_t i = 0; i < first.fp8.size(); ++i) {
      EXPECT_EQ(first.fp8[i].counts.x, second.fp8[i].counts.x);
      EXPECT_EQ(first.fp8[i].counts.dy, second.fp8[i].counts.dy);
      EXPECT_EQ(first.fp8[i].counts.w, second.fp8[i].counts.w);
    }
  }
}

TEST(Fp8Training, EvaluationUsesTheSameArithmetic) {
  Trainable s;
  for (ScaleForm scales : kScales) {
    const Model model = s.model(Compute::Fp8, form_of(scales));
    ModelGradients g;
    EXPECT_NEAR(evaluate_loss(model, s.view()), s.pass(model, g).main, 1e-6);
  }
}

// A linear's three products are those of the dequantised operands: what FP32 makes of them.
TEST(Fp8Training, ProductsOfOneLinearAreThoseOfItsDequantisedOperands) {
  Trainable s;
  const Index T = 140;
  const Tensor x = random_tensor({T, s.config.hidden_size}, 1);
  const Tensor dy = random_tensor({T, s.config.intermediate_size}, 2, 1e-6);
  for (ScaleForm scales : kScales) {
    const Model model = s.model(Compute::Fp8, form_of(scales));
    const Weight& w = model.weights.layers[0].mlp.gate_proj;
    const Operand qx = operand(model, share(x.clone())), qdy = operand(model, share(dy.clone()));
    Tensor y = Tensor::zeros({T, w.n_outputs()}), dx = Tensor::zeros(x.shape());
    Tensor dw = Tensor::zeros({w.n_outputs(), s.config.hidden_size});
    apply(w, qx, y.v2());
    apply_transposed(w, qdy, dx.v2());
    weight_gradient(model, along_tokens(model, qdy), along_tokens(model, qx), dw);

    // The same from dequantised operands.
    const Tensor& master = s.masters.layers[0].mlp.gate_proj;
    Tensor codes(DType::F8_E4M3, master.shape()), block_scales = Tensor::zeros({2, 2});
    fp8_blocks(master.v2(), scales, codes.view<E4M3, 2>(), block_scales.v2());
    Tensor vw = Tensor::zeros(master.shape()), vx = Tensor::zeros(x.shape()),
           vdy = Tensor::zeros(dy.shape());
    dequantize_blocks(std::as_const(codes).view<E4M3, 2>(), View2<const float>(block_scales.v2()),
                      kWeightBlock, vw.v2());
    dequantize(qx.fp8->view(), vx.v2());
    dequantize(qdy.fp8->view(), vdy.v2());
    Tensor y2 = Tensor::zeros(y.shape()), dx2 = Tensor::zeros(dx.shape());
    reference::linear<float>(vx.v2(), vw.v2(), y2.v2(), Write::Overwrite);
    reference::linear_backward_input<float>(vdy.v2(), vw.v2(), dx2.v2(), Write::Overwrite);
    const auto expect_near = [](const Tensor& a, const Tensor& b, double size) {
      for (Index i = 0; i < a.size(); ++i) ASSERT_NEAR(a.flat()(i), b.flat()(i), size) << i;
    };
    // Sums of 136 products of about 0.08, and of 150 of 1e-7.
    expect_near(y, y2, 150 * 0x1p-23 * 10);
    expect_near(dx, dx2, 150 * 0x1p-23 * 1e-5);
    // Tiled again: E4M3 once more, so near the product of the operands to within its rounding.
    Tensor dw2 = Tensor::zeros(dw.shape());
    reference::linear_weight_gradient<float>(vdy.v2(), vx.v2(), dw2.v2());
    EXPECT_GT(cosine(dw, dw2), 0.995);
  }
}

struct RecomputeCase {
  const char* name;
  Recompute recompute;
};

// Every setting alone and all together, against keeping what it would compute again.
TEST(Recompute, GivesTheSameBitsAndSavesBytes) {
  Trainable s;
  for (Compute compute : {Compute::Fp32, Compute::Bf16, Compute::Fp8}) {
    SCOPED_TRACE(std::string(name_of(compute)));
    const bool swiglu = compute == Compute::Fp8;  // which cannot keep it
    ModelGradients kept, again;
    const Model keeps = s.model(compute, form_of(ScaleForm::PowerOfTwo, {false, false, swiglu}));
    s.pass(keeps, kept);  // the scratch memory of the threads is there from now on
    const PassResult first = s.pass(keeps, kept);
    for (const RecomputeCase& c : {RecomputeCase{"rmsnorm", {true, false, swiglu}},
                                   RecomputeCase{"mla_up", {false, true, swiglu}},
                                   RecomputeCase{"swiglu", {false, false, true}},
                                   RecomputeCase{"all", {true, true, true}}}) {
      SCOPED_TRACE(c.name);
      const PassResult r =
          s.pass(s.model(compute, form_of(ScaleForm::PowerOfTwo, c.recompute)), again);
      EXPECT_EQ(r.total, first.total);
      expect_same_bits(s.config, kept, again);
      if (c.recompute.swiglu != swiglu || c.recompute.rmsnorm) {
        EXPECT_LT(r.saved_bytes, 0.97 * first.saved_bytes);
      } else if (c.recompute.mla_up) {
        EXPECT_EQ(first.saved_bytes - r.saved_bytes, s.bytes_of_heads(compute));
      }
      // Nothing is counted twice.
      for (std::size_t i = 0; i < r.fp8.size(); ++i) {
        EXPECT_EQ(r.fp8[i].counts.x, first.fp8[i].counts.x);
        EXPECT_EQ(r.fp8[i].counts.dy, first.fp8[i].counts.dy);
      }
      for (std::size_t i = 0; i < r.moe.size(); ++i) EXPECT_EQ(r.moe[i].load, first.moe[i].load);
    }
  }
}

TEST(Recompute, WithoutCompressedQueriesAsWell) {
  Trainable s;
  s.config.q_lora_rank.reset();
  s.masters = small_parameters(s.config);
  for (Compute compute : {Compute::Fp32, Compute::Fp8}) {
    ModelGradients kept, again;
    s.pass(s.model(compute), kept);
    s.pass(s.model(compute, form_of(ScaleForm::PowerOfTwo, {true, true, true})), again);
    expect_same_bits(s.config, kept, again);
  }
}

TEST(Recompute, InDoubleGivesTheSameBits) {
  Trainable s;
  ModelParameters<Tensor> masters = widened(s.config, s.masters);
  ModelOf<double> model = make_double_model(s.config, masters);
  ModelGradients kept = zero_parameters(s.config, DType::F64);
  ModelGradients again = zero_parameters(s.config, DType::F64);
  const auto rows = s.view().rows(0, 2);
  forward_backward(model, rows, {}, kept);
  model.recompute = {true, true, false};
  forward_backward(model, rows, {}, again);
  expect_same_bits(s.config, kept, again);
}

TEST(Fp8Statistics, CountEveryOperandOnceByLayer) {
  Trainable s;
  ModelGradients g;
  const PassResult r = s.pass(s.model(Compute::Fp8), g);
  const ModelConfig& c = s.config;
  ASSERT_EQ(r.fp8.size(), 4u);  // three layers and a module
  for (std::size_t i = 0; i < r.fp8.size(); ++i) {
    const Fp8LayerCounts& n = r.fp8[i].counts;
    EXPECT_EQ(r.fp8[i].layer, static_cast<Index>(i));
    const Index T = 10 * (i == 3 ? 29 : 30), D = c.hidden_size, H = c.num_attention_heads;
    const Index attention = D + *c.q_lora_rank + c.kv_lora_rank + H * c.v_head_dim;
    const Index K = c.num_experts_per_tok, F = c.moe_intermediate_size;
    const Index ffn = i == 0 ? D + c.intermediate_size : D + c.shared_width() + K * F;
    EXPECT_EQ(n.x.values, T * (attention + ffn));
    const Index dattention = D + H * (c.qk_nope_head_dim + c.v_head_dim) + c.cache_row() +
                             *c.q_lora_rank + H * c.qk_head_dim();
    const Index dffn =
        i == 0 ? D + 2 * c.intermediate_size : D + 2 * c.shared_width() + K * (D + 2 * F);
    EXPECT_EQ(n.dy.values, T * (dattention + dffn));
    EXPECT_GT(n.w.values, D * F);
    EXPECT_EQ(n.w.clipped_share(), 0);  // scales are found from the maximum
    EXPECT_LT(n.x.underflow_share(), 0.02);
    EXPECT_GT(n.dy.nonzero, 0);
  }
  TrainingForm off;
  off.fp8_statistics = false;
  ModelGradients same;
  EXPECT_TRUE(s.pass(s.model(Compute::Fp8, off), same).fp8.empty());
  expect_same_bits(s.config, g, same);
}

}  // namespace
}  // namespace minke

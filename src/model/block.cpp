#include "model/block.h"

#include "ops/permute.h"
#include "ops/rmsnorm.h"

namespace minke {
namespace {

SharedTensor normed(View2<const float> x, const Weight& gain, float eps, Tensor& rstd) {
  auto y = std::make_shared<Tensor>(Tensor::uninitialized({x.extent(0), x.extent(1)}));
  rstd = Tensor::uninitialized({x.extent(0)});
  rmsnorm_forward(x, gain.dense.v1(), eps, y->v2(), rstd.v1());
  return y;
}

}  // namespace

BlockSaved block_forward(const Model& model, const BlockWeights& w, SequenceBatch batch, Tensor x,
                         Tensor& y, std::span<std::int64_t> load) {
  const float eps = static_cast<float>(model.config.rms_norm_eps);
  const Shape shape = x.shape();
  BlockSaved s;
  s.u = Tensor::uninitialized(shape);
  s.attention = mla_forward(model, w.self_attn, batch,
                            normed(x.v2(), w.input_layernorm, eps, s.x_rstd), s.u.v2());
  add_to(x.v2(), s.u.v2());
  s.x = std::move(x);

  y = Tensor::uninitialized(shape);
  SharedTensor h = normed(s.u.v2(), w.post_attention_layernorm, eps, s.u_rstd);
  if (w.is_moe)
    s.moe = moe_forward(model.config, w.moe, std::move(h), y.v2(), load);
  else
    s.ffn = ffn_forward(w.mlp, std::move(h), y.v2());
  add_to(s.u.v2(), y.v2());
  return s;
}

// du = dy + dRMSNorm(dFFN(dy));   dx = du + dRMSNorm(dMLA(du))
BlockWeightWork block_backward_input(const Model& model, const BlockWeights& w, SequenceBatch batch,
                                     Tensor dy, BlockSaved s, BalanceTerm& balance, Tensor& dx) {
  const Shape shape = dy.shape();
  BlockWeightWork work;
  const auto dy_shared = std::make_shared<const Tensor>(std::move(dy));
  work.dnorm2 = Tensor::uninitialized(shape);
  if (w.is_moe)
    work.moe = moe_backward_input(model.config, w.moe, dy_shared, std::move(s.moe), balance,
                                  work.dnorm2.v2());
  else
    work.ffn = ffn_backward_input(w.mlp, dy_shared, std::move(s.ffn), work.dnorm2.v2());
  auto du = std::make_shared<Tensor>(Tensor::uninitialized(shape));
  rmsnorm_backward_input(work.dnorm2.v2(), s.u.v2(), w.post_attention_layernorm.dense.v1(),
                         s.u_rstd.v1(), du->v2());
  add_to(dy_shared->v2(), du->v2());

  work.dnorm1 = Tensor::uninitialized(shape);
  work.attention =
      mla_backward_input(model, w.self_attn, batch, du, std::move(s.attention), work.dnorm1.v2());
  dx = Tensor::uninitialized(shape);
  rmsnorm_backward_input(work.dnorm1.v2(), s.x.v2(), w.input_layernorm.dense.v1(), s.x_rstd.v1(),
                         dx.v2());
  add_to(du->v2(), dx.v2());
  work.x = std::move(s.x);
  work.x_rstd = std::move(s.x_rstd);
  work.u = std::move(s.u);
  work.u_rstd = std::move(s.u_rstd);
  return work;
}

void block_backward_weight(const Model& model, const BlockWeights& w, BlockWeightWork k,
                           BlockGradients& dw) {
  if (w.is_moe)
    moe_backward_weight(model.config, std::move(k.moe), model.precision(), dw.moe);
  else
    ffn_backward_weight(std::move(k.ffn), model.precision(), dw.mlp);
  rmsnorm_backward_weight(k.dnorm2.v2(), k.u.v2(), k.u_rstd.v1(), dw.post_attention_layernorm.v1());
  mla_backward_weight(model, std::move(k.attention), dw.self_attn);
  rmsnorm_backward_weight(k.dnorm1.v2(), k.x.v2(), k.x_rstd.v1(), dw.input_layernorm.v1());
}

}  // namespace minke

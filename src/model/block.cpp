#include "model/block.h"

#include "ops/permute.h"
#include "ops/rmsnorm.h"

namespace minke {
namespace {

template <class Real, class To>
SharedTensor normed(const Tensor& x, const WeightOf<Real>& gain, double eps, Tensor& rstd) {
  const std::shared_ptr<Tensor> y = std::make_shared<Tensor>(Tensor::uninitialized<To>(x.shape()));
  rstd = Tensor::uninitialized<Real>({x.extent(0)});
  rmsnorm_forward(x.v2<Real>(), gain.vector(), eps, y->v2<To>(), rstd.v1<Real>());
  return y;
}

// What only linears read.
template <class Real>
SharedTensor normed_operand(const ModelOf<Real>& model, const Tensor& x, const WeightOf<Real>& gain,
                            Tensor& rstd) {
  SharedTensor y;
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    y = normed<Real, Value>(x, gain, model.config.rms_norm_eps, rstd);
  });
  return y;
}

// What an FFN reads, and with experts their gate, in full precision.
template <class Real>
SharedTensor normed_for_ffn(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                            BlockSaved& s) {
  const WeightOf<Real>& gain = w.post_attention_layernorm;
  return w.is_moe ? normed<Real, Real>(s.u, gain, model.config.rms_norm_eps, s.u_rstd)
                  : normed_operand(model, s.u, gain, s.u_rstd);
}

// The outputs of both norms are read from x and u again.
template <class Real>
void forget_normed(const BlockWeightsOf<Real>& w, BlockSaved& s) {
  s.attention.x = {};
  if (w.is_moe)
    forget_input(s.moe);
  else
    s.ffn.x = {};
}

template <class Real>
void restore_normed(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w, BlockSaved& s) {
  s.attention.x = operand(model, normed_operand(model, s.x, w.input_layernorm, s.x_rstd));
  SharedTensor h = normed_for_ffn(model, w, s);
  if (w.is_moe)
    restore_input(model, std::move(h), s.moe);
  else
    s.ffn.x = operand(model, std::move(h));
}

}  // namespace

template <class Real>
BlockSaved block_forward(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                         SequenceBatch batch, Tensor x, Tensor& y, std::span<std::int64_t> load,
                         Fp8LayerCounts* counts) {
  const Shape shape = x.shape();
  BlockSaved s;
  s.u = Tensor::uninitialized<Real>(shape);
  s.attention =
      mla_forward(model, w.self_attn, batch, normed_operand(model, x, w.input_layernorm, s.x_rstd),
                  s.u.v2<Real>(), counts);
  add_to(x.v2<Real>(), s.u.v2<Real>());
  s.x = std::move(x);

  y = Tensor::uninitialized<Real>(shape);
  SharedTensor h = normed_for_ffn(model, w, s);
  if (w.is_moe)
    s.moe = moe_forward(model, w.moe, std::move(h), y.v2<Real>(), load, counts);
  else
    s.ffn = ffn_forward(model, w.mlp, operand(model, std::move(h), inputs_of(counts)), y.v2<Real>(),
                        Write::Overwrite, counts);
  add_to(s.u.v2<Real>(), y.v2<Real>());
  if (model.recompute.rmsnorm) forget_normed(w, s);
  return s;
}

// du = dy + dRMSNorm(dFFN(dy));   dx = du + dRMSNorm(dMLA(du))
template <class Real>
BlockWeightWork block_backward_input(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                                     SequenceBatch batch, Tensor dy, BlockSaved s,
                                     BalanceTerm& balance, Tensor& dx, Fp8LayerCounts* counts) {
  const Shape shape = dy.shape();
  if (model.recompute.rmsnorm) restore_normed(model, w, s);
  BlockWeightWork work;
  const auto dy_shared = share(std::move(dy));
  work.dnorm2 = Tensor::uninitialized<Real>(shape);
  if (w.is_moe)
    work.moe = moe_backward_input(model, w.moe, dy_shared, std::move(s.moe), balance,
                                  work.dnorm2.v2<Real>(), counts);
  else
    work.ffn = ffn_backward_input(model, w.mlp, dy_shared, std::move(s.ffn), work.dnorm2.v2<Real>(),
                                  Write::Overwrite, counts);
  const std::shared_ptr<Tensor> du = std::make_shared<Tensor>(Tensor::uninitialized<Real>(shape));
  rmsnorm_backward_input(work.dnorm2.v2<Real>(), s.u.v2<Real>(),
                         w.post_attention_layernorm.vector(), s.u_rstd.v1<Real>(), du->v2<Real>());
  add_to(dy_shared->v2<Real>(), du->v2<Real>());

  work.dnorm1 = Tensor::uninitialized<Real>(shape);
  work.attention = mla_backward_input(model, w.self_attn, batch, du, std::move(s.attention),
                                      work.dnorm1.v2<Real>(), counts);
  dx = Tensor::uninitialized<Real>(shape);
  rmsnorm_backward_input(work.dnorm1.v2<Real>(), s.x.v2<Real>(), w.input_layernorm.vector(),
                         s.x_rstd.v1<Real>(), dx.v2<Real>());
  add_to(du->v2<Real>(), dx.v2<Real>());
  work.x = std::move(s.x);
  work.x_rstd = std::move(s.x_rstd);
  work.u = std::move(s.u);
  work.u_rstd = std::move(s.u_rstd);
  return work;
}

template <class Real>
void block_backward_weight(const ModelOf<Real>& model, const BlockWeightsOf<Real>& w,
                           BlockWeightWork k, BlockGradients& dw) {
  if (w.is_moe)
    moe_backward_weight(model, std::move(k.moe), dw.moe);
  else
    ffn_backward_weight(model, std::move(k.ffn), dw.mlp);
  rmsnorm_backward_weight(k.dnorm2.v2<Real>(), k.u.v2<Real>(), k.u_rstd.v1<Real>(),
                          dw.post_attention_layernorm.v1<Real>());
  mla_backward_weight(model, std::move(k.attention), dw.self_attn);
  rmsnorm_backward_weight(k.dnorm1.v2<Real>(), k.x.v2<Real>(), k.x_rstd.v1<Real>(),
                          dw.input_layernorm.v1<Real>());
}

template decltype(block_forward<float>) block_forward<float>;
template decltype(block_forward<double>) block_forward<double>;
template decltype(block_backward_input<float>) block_backward_input<float>;
template decltype(block_backward_input<double>) block_backward_input<double>;
template decltype(block_backward_weight<float>) block_backward_weight<float>;
template decltype(block_backward_weight<double>) block_backward_weight<double>;

}  // namespace minke

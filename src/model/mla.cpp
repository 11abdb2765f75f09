#include "model/mla.h"

#include <numeric>

#include "ops/attention.h"
#include "ops/mla_heads.h"
#include "ops/permute.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"

namespace minke {
namespace {

MlaHeads heads_of(const ModelConfig& c) {
  return {c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim};
}

// The rotary part of every head of q [T, H (N+R)], as [T, H, R].
template <class Real>
View3<Real> rope_part(const ModelConfig& c, Tensor& q) {
  return reshape<3>(q.v2<Real>(), {q.extent(0), c.num_attention_heads, c.qk_head_dim()})
      .columns(c.qk_nope_head_dim, c.qk_rope_head_dim);
}

// [T, R] as one head.
template <class Real>
View3<Real> one_head(View2<Real> x) {
  return View3<Real>(x.data(), {x.extent(0), 1, x.extent(1)}, {x.stride(0), x.extent(1), 1});
}

template <class Real>
void fill_angles(const ModelOf<Real>& model, SequenceBatch batch, MlaSaved& s) {
  std::vector<Index> positions(static_cast<std::size_t>(batch.rows()));
  for (Index t = 0; t < batch.rows(); ++t)
    positions[static_cast<std::size_t>(t)] = t % batch.length;
  const Index half = model.config.qk_rope_head_dim / 2;
  s.cos = Tensor::uninitialized<Real>({batch.rows(), half});
  s.sin = Tensor::uninitialized<Real>({batch.rows(), half});
  rope_angles(positions, model.inv_freq, model.rotation_mscale, s.cos.v2<Real>(), s.sin.v2<Real>());
}

}  // namespace

template <class Real>
MlaSaved mla_forward(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w, SequenceBatch batch,
                     SharedTensor x, View2<Real> y) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  MlaSaved s;
  fill_angles(model, batch, s);

  s.q = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
  if (c.q_lora_rank) {
    s.q_a = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    s.q_a_rstd = Tensor::uninitialized<Real>({T});
    s.c_q = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    apply(w.q_a_proj, x->v2<Real>(), s.q_a.v2<Real>());
    rmsnorm_forward(s.q_a.v2<Real>(), w.q_a_layernorm.vector(), kLatentNormEps, s.c_q.v2<Real>(),
                    s.q_a_rstd.v1<Real>());
    apply(w.q_b_proj, s.c_q.v2<Real>(), s.q.v2<Real>());
  } else {
    apply(w.q_proj, x->v2<Real>(), s.q.v2<Real>());
  }
  rope_apply(rope_part<Real>(c, s.q), s.cos.v2<Real>(), s.sin.v2<Real>());

  s.kv_a = Tensor::uninitialized<Real>({T, C + R});
  s.kv_a_rstd = Tensor::uninitialized<Real>({T});
  s.c_kv = Tensor::uninitialized<Real>({T, C});
  apply(w.kv_a_proj_with_mqa, x->v2<Real>(), s.kv_a.v2<Real>());
  rmsnorm_forward(s.kv_a.v2<Real>().columns(0, C), w.kv_a_layernorm.vector(), kLatentNormEps,
                  s.c_kv.v2<Real>(), s.kv_a_rstd.v1<Real>());
  const View2<Real> k_rope = s.kv_a.v2<Real>().columns(C, R);
  rope_apply(one_head(k_rope), s.cos.v2<Real>(), s.sin.v2<Real>());

  s.k = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
  s.v = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
  {
    Tensor kv = Tensor::uninitialized<Real>({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
    apply(w.kv_b_proj, s.c_kv.v2<Real>(), kv.v2<Real>());
    mla_split_heads(heads_of(c), kv.v2<Real>(), k_rope, s.k.v2<Real>(), s.v.v2<Real>());
  }

  s.out = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
  s.lse = Tensor::uninitialized<Real>({T, H});
  attention_forward_batch(c.expanded_attention(), batch.n_sequences, s.q.v2<Real>(), s.k.v2<Real>(),
                          s.v.v2<Real>(), model.softmax_scale, s.out.v2<Real>(), s.lse.v2<Real>());
  apply(w.o_proj, s.out.v2<Real>(), y);
  s.x = std::move(x);
  return s;
}

// With the products of the forward read backwards; d(k_rope) is summed over heads, and the
// rotation's gradient is the rotation by the opposite angle.
template <class Real>
MlaWeightWork mla_backward_input(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w,
                                 SequenceBatch batch, SharedTensor dy, MlaSaved s, View2<Real> dx) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  MlaWeightWork work;

  work.dq = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
  work.dkv = Tensor::uninitialized<Real>({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
  work.dkv_a = Tensor::uninitialized<Real>({T, C + R});
  const View2<Real> dk_rope = work.dkv_a.v2<Real>().columns(C, R);
  {
    Tensor dout = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
    Tensor dk = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
    Tensor dv = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
    apply_transposed(w.o_proj, dy->v2<Real>(), dout.v2<Real>());
    attention_backward_batch(c.expanded_attention(), batch.n_sequences, s.q.v2<Real>(),
                             s.k.v2<Real>(), s.v.v2<Real>(), s.out.v2<Real>(), s.lse.v2<Real>(),
                             dout.v2<Real>(), model.softmax_scale, work.dq.v2<Real>(),
                             dk.v2<Real>(), dv.v2<Real>());
    mla_split_heads_backward(heads_of(c), dk.v2<Real>(), dv.v2<Real>(), work.dkv.v2<Real>(),
                             dk_rope);
  }
  rope_apply(rope_part<Real>(c, work.dq), s.cos.v2<Real>(), s.sin.v2<Real>(), Turn::Backward);
  rope_apply(one_head(dk_rope), s.cos.v2<Real>(), s.sin.v2<Real>(), Turn::Backward);

  work.dc_kv = Tensor::uninitialized<Real>({T, C});
  apply_transposed(w.kv_b_proj, work.dkv.v2<Real>(), work.dc_kv.v2<Real>());
  rmsnorm_backward_input(work.dc_kv.v2<Real>(), s.kv_a.v2<Real>().columns(0, C),
                         w.kv_a_layernorm.vector(), s.kv_a_rstd.v1<Real>(),
                         work.dkv_a.v2<Real>().columns(0, C));
  apply_transposed(w.kv_a_proj_with_mqa, work.dkv_a.v2<Real>(), dx);

  if (c.q_lora_rank) {
    work.dc_q = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    work.dq_a = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    apply_transposed(w.q_b_proj, work.dq.v2<Real>(), work.dc_q.v2<Real>());
    rmsnorm_backward_input(work.dc_q.v2<Real>(), s.q_a.v2<Real>(), w.q_a_layernorm.vector(),
                           s.q_a_rstd.v1<Real>(), work.dq_a.v2<Real>());
    apply_transposed(w.q_a_proj, work.dq_a.v2<Real>(), dx, Write::Add);
  } else {
    apply_transposed(w.q_proj, work.dq.v2<Real>(), dx, Write::Add);
  }

  work.x = std::move(s.x);
  work.dy = std::move(dy);
  work.out = std::move(s.out);
  work.c_kv = std::move(s.c_kv);
  work.kv_a = std::move(s.kv_a);
  work.kv_a_rstd = std::move(s.kv_a_rstd);
  work.q_a = std::move(s.q_a);
  work.q_a_rstd = std::move(s.q_a_rstd);
  work.c_q = std::move(s.c_q);
  return work;
}

template <class Real>
void mla_backward_weight(const ModelOf<Real>& model, MlaWeightWork k, MlaGradients& dw) {
  const Precision precision = model.precision();
  linear_weight_gradient(k.dy->v2<Real>(), k.out.v2<Real>(), dw.o_proj.v2<Real>(), precision);
  linear_weight_gradient(k.dkv.v2<Real>(), k.c_kv.v2<Real>(), dw.kv_b_proj.v2<Real>(), precision);
  rmsnorm_backward_weight(k.dc_kv.v2<Real>(),
                          k.kv_a.v2<Real>().columns(0, model.config.kv_lora_rank),
                          k.kv_a_rstd.v1<Real>(), dw.kv_a_layernorm.v1<Real>());
  linear_weight_gradient(k.dkv_a.v2<Real>(), k.x->v2<Real>(), dw.kv_a_proj_with_mqa.v2<Real>(),
                         precision);
  if (model.config.q_lora_rank) {
    linear_weight_gradient(k.dq.v2<Real>(), k.c_q.v2<Real>(), dw.q_b_proj.v2<Real>(), precision);
    rmsnorm_backward_weight(k.dc_q.v2<Real>(), k.q_a.v2<Real>(), k.q_a_rstd.v1<Real>(),
                            dw.q_a_layernorm.v1<Real>());
    linear_weight_gradient(k.dq_a.v2<Real>(), k.x->v2<Real>(), dw.q_a_proj.v2<Real>(), precision);
  } else {
    linear_weight_gradient(k.dq.v2<Real>(), k.x->v2<Real>(), dw.q_proj.v2<Real>(), precision);
  }
}

template decltype(mla_forward<float>) mla_forward<float>;
template decltype(mla_forward<double>) mla_forward<double>;
template decltype(mla_backward_input<float>) mla_backward_input<float>;
template decltype(mla_backward_input<double>) mla_backward_input<double>;
template decltype(mla_backward_weight<float>) mla_backward_weight<float>;
template decltype(mla_backward_weight<double>) mla_backward_weight<double>;

}  // namespace minke

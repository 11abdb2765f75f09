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
View3<float> rope_part(const ModelConfig& c, Tensor& q) {
  return reshape<3>(q.v2(), {q.extent(0), c.num_attention_heads, c.qk_head_dim()})
      .columns(c.qk_nope_head_dim, c.qk_rope_head_dim);
}

// [T, R] as one head.
View3<float> one_head(View2<float> x) {
  return View3<float>(x.data(), {x.extent(0), 1, x.extent(1)}, {x.stride(0), x.extent(1), 1});
}

void fill_angles(const Model& model, SequenceBatch batch, MlaSaved& s) {
  std::vector<Index> positions(static_cast<std::size_t>(batch.rows()));
  for (Index t = 0; t < batch.rows(); ++t)
    positions[static_cast<std::size_t>(t)] = t % batch.length;
  const Index half = model.config.qk_rope_head_dim / 2;
  s.cos = Tensor::uninitialized({batch.rows(), half});
  s.sin = Tensor::uninitialized({batch.rows(), half});
  rope_angles(positions, model.inv_freq, model.rotation_mscale, s.cos.v2(), s.sin.v2());
}

}  // namespace

MlaSaved mla_forward(const Model& model, const MlaWeights& w, SequenceBatch batch, SharedTensor x,
                     View2<float> y) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  MlaSaved s;
  fill_angles(model, batch, s);

  s.q = Tensor::uninitialized({T, H * c.qk_head_dim()});
  if (c.q_lora_rank) {
    s.q_a = Tensor::uninitialized({T, *c.q_lora_rank});
    s.q_a_rstd = Tensor::uninitialized({T});
    s.c_q = Tensor::uninitialized({T, *c.q_lora_rank});
    apply(w.q_a_proj, x->v2(), s.q_a.v2());
    rmsnorm_forward(s.q_a.v2(), w.q_a_layernorm.dense.v1(), kLatentNormEps, s.c_q.v2(),
                    s.q_a_rstd.v1());
    apply(w.q_b_proj, s.c_q.v2(), s.q.v2());
  } else {
    apply(w.q_proj, x->v2(), s.q.v2());
  }
  rope_apply(rope_part(c, s.q), s.cos.v2(), s.sin.v2());

  s.kv_a = Tensor::uninitialized({T, C + R});
  s.kv_a_rstd = Tensor::uninitialized({T});
  s.c_kv = Tensor::uninitialized({T, C});
  apply(w.kv_a_proj_with_mqa, x->v2(), s.kv_a.v2());
  rmsnorm_forward(s.kv_a.v2().columns(0, C), w.kv_a_layernorm.dense.v1(), kLatentNormEps,
                  s.c_kv.v2(), s.kv_a_rstd.v1());
  const View2<float> k_rope = s.kv_a.v2().columns(C, R);
  rope_apply(one_head(k_rope), s.cos.v2(), s.sin.v2());

  s.k = Tensor::uninitialized({T, H * c.qk_head_dim()});
  s.v = Tensor::uninitialized({T, H * c.v_head_dim});
  {
    Tensor kv = Tensor::uninitialized({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
    apply(w.kv_b_proj, s.c_kv.v2(), kv.v2());
    mla_split_heads(heads_of(c), kv.v2(), k_rope, s.k.v2(), s.v.v2());
  }

  s.out = Tensor::uninitialized({T, H * c.v_head_dim});
  s.lse = Tensor::uninitialized({T, H});
  attention_forward_batch(c.expanded_attention(), batch.n_sequences, s.q.v2(), s.k.v2(), s.v.v2(),
                          model.softmax_scale, s.out.v2(), s.lse.v2());
  apply(w.o_proj, s.out.v2(), y);
  s.x = std::move(x);
  return s;
}

// With the products of the forward read backwards; d(k_rope) is summed over heads, and the
// rotation's gradient is the rotation by the opposite angle.
MlaWeightWork mla_backward_input(const Model& model, const MlaWeights& w, SequenceBatch batch,
                                 SharedTensor dy, MlaSaved s, View2<float> dx) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  MlaWeightWork work;

  work.dq = Tensor::uninitialized({T, H * c.qk_head_dim()});
  work.dkv = Tensor::uninitialized({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
  work.dkv_a = Tensor::uninitialized({T, C + R});
  const View2<float> dk_rope = work.dkv_a.v2().columns(C, R);
  {
    Tensor dout = Tensor::uninitialized({T, H * c.v_head_dim});
    Tensor dk = Tensor::uninitialized({T, H * c.qk_head_dim()});
    Tensor dv = Tensor::uninitialized({T, H * c.v_head_dim});
    apply_transposed(w.o_proj, dy->v2(), dout.v2());
    attention_backward_batch(c.expanded_attention(), batch.n_sequences, s.q.v2(), s.k.v2(),
                             s.v.v2(), s.out.v2(), s.lse.v2(), dout.v2(), model.softmax_scale,
                             work.dq.v2(), dk.v2(), dv.v2());
    mla_split_heads_backward(heads_of(c), dk.v2(), dv.v2(), work.dkv.v2(), dk_rope);
  }
  rope_apply(rope_part(c, work.dq), s.cos.v2(), s.sin.v2(), Turn::Backward);
  rope_apply(one_head(dk_rope), s.cos.v2(), s.sin.v2(), Turn::Backward);

  work.dc_kv = Tensor::uninitialized({T, C});
  apply_transposed(w.kv_b_proj, work.dkv.v2(), work.dc_kv.v2());
  rmsnorm_backward_input(work.dc_kv.v2(), s.kv_a.v2().columns(0, C), w.kv_a_layernorm.dense.v1(),
                         s.kv_a_rstd.v1(), work.dkv_a.v2().columns(0, C));
  apply_transposed(w.kv_a_proj_with_mqa, work.dkv_a.v2(), dx);

  if (c.q_lora_rank) {
    work.dc_q = Tensor::uninitialized({T, *c.q_lora_rank});
    work.dq_a = Tensor::uninitialized({T, *c.q_lora_rank});
    apply_transposed(w.q_b_proj, work.dq.v2(), work.dc_q.v2());
    rmsnorm_backward_input(work.dc_q.v2(), s.q_a.v2(), w.q_a_layernorm.dense.v1(), s.q_a_rstd.v1(),
                           work.dq_a.v2());
    apply_transposed(w.q_a_proj, work.dq_a.v2(), dx, Write::Add);
  } else {
    apply_transposed(w.q_proj, work.dq.v2(), dx, Write::Add);
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

void mla_backward_weight(const Model& model, MlaWeightWork k, MlaGradients& dw) {
  const Precision precision = model.precision();
  linear_weight_gradient(k.dy->v2(), k.out.v2(), dw.o_proj.v2(), precision);
  linear_weight_gradient(k.dkv.v2(), k.c_kv.v2(), dw.kv_b_proj.v2(), precision);
  rmsnorm_backward_weight(k.dc_kv.v2(), k.kv_a.v2().columns(0, model.config.kv_lora_rank),
                          k.kv_a_rstd.v1(), dw.kv_a_layernorm.v1());
  linear_weight_gradient(k.dkv_a.v2(), k.x->v2(), dw.kv_a_proj_with_mqa.v2(), precision);
  if (model.config.q_lora_rank) {
    linear_weight_gradient(k.dq.v2(), k.c_q.v2(), dw.q_b_proj.v2(), precision);
    rmsnorm_backward_weight(k.dc_q.v2(), k.q_a.v2(), k.q_a_rstd.v1(), dw.q_a_layernorm.v1());
    linear_weight_gradient(k.dq_a.v2(), k.x->v2(), dw.q_a_proj.v2(), precision);
  } else {
    linear_weight_gradient(k.dq.v2(), k.x->v2(), dw.q_proj.v2(), precision);
  }
}

}  // namespace minke

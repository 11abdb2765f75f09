#include "model/mla.h"

#include <type_traits>
#include <utility>

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

// x, rounded where Head is narrower.
template <class Head>
Tensor as(Tensor x) {
  return x.dtype() == dtype_of<Head> ? std::move(x) : rounded_to_bf16(std::as_const(x).v2());
}

// [T, R] as one head.
template <class Real>
View3<Real> one_head(View2<Real> x) {
  return View3<Real>(x.data(), {x.extent(0), 1, x.extent(1)}, {x.stride(0), x.extent(1), 1});
}

// What attention does not look across, as offsets of rows.
std::vector<Index> attention_offsets(SequenceBatch batch) {
  std::vector<Index> offsets;
  for (Index b = 0; b < batch.n_sequences; ++b) {
    if (batch.starts.empty()) {
      offsets.push_back(b * batch.length);
      continue;
    }
    for (const Index start : batch.starts[static_cast<std::size_t>(b)])
      if (start < batch.length) offsets.push_back(b * batch.length + start);
  }
  offsets.push_back(batch.rows());
  return offsets;
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

// The norm of a latent, as the up-projection reads it.
template <class Real>
Operand normed_latent(const ModelOf<Real>& model, View2<const Real> latent,
                      const WeightOf<Real>& gain, Tensor& rstd, Fp8Counts* counts = nullptr) {
  Tensor y;
  rstd = Tensor::uninitialized<Real>({latent.extent(0)});
  with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
    y = Tensor::uninitialized<Value>({latent.extent(0), latent.extent(1)});
    rmsnorm_forward(latent, gain.vector(), kLatentNormEps, y.v2<Value>(), rstd.v1<Real>());
  });
  return operand(model, share(std::move(y)), counts);
}

template <class Real>
void norm_latents(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w, MlaSaved& s,
                  Fp8Counts* counts = nullptr) {
  if (model.config.q_lora_rank)
    s.c_q = normed_latent<Real>(model, s.q_a.v2<Real>(), w.q_a_layernorm, s.q_a_rstd, counts);
  s.c_kv = normed_latent<Real>(model, s.kv_a.v2<Real>().columns(0, model.config.kv_lora_rank),
                               w.kv_a_layernorm, s.kv_a_rstd, counts);
}

// Calls f with the type of queries, keys and values: what attention's products take.
template <class Real, class F>
void with_head_type(const ModelOf<Real>& model, const F& f) {
  if constexpr (std::is_same_v<Real, float>)
    if (model.precision() == Precision::Bf16) return f(std::type_identity<BF16>());
  f(std::type_identity<Real>());
}

// Queries, keys and values from the normed latents and the rotated k_rope.
template <class Real>
void project_up(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w, MlaSaved& s) {
  const ModelConfig& c = model.config;
  const Index T = s.kv_a.extent(0), H = c.num_attention_heads;
  Tensor q = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
  if (c.q_lora_rank)
    apply(w.q_b_proj, s.c_q, q.v2<Real>());
  else
    apply(w.q_proj, s.x, q.v2<Real>());
  rope_apply(rope_part<Real>(c, q), s.cos.v2<Real>(), s.sin.v2<Real>());

  Tensor kv = Tensor::uninitialized<Real>({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
  apply(w.kv_b_proj, s.c_kv, kv.v2<Real>());
  with_head_type(model, [&]<class Head>(std::type_identity<Head>) {
    s.k = Tensor::uninitialized<Head>({T, H * c.qk_head_dim()});
    s.v = Tensor::uninitialized<Head>({T, H * c.v_head_dim});
    mla_split_heads(heads_of(c), kv.v2<Real>(),
                    s.kv_a.v2<Real>().columns(c.kv_lora_rank, c.qk_rope_head_dim), s.k.v2<Head>(),
                    s.v.v2<Head>());
    s.q = as<Head>(std::move(q));
  });
}

template <class Real>
void attend(const ModelOf<Real>& model, SequenceBatch batch, const MlaSaved& s, View2<Real> out,
            View2<Real> lse) {
  with_head_type(model, [&]<class Head>(std::type_identity<Head>) {
    attention_forward_batch(model.config.expanded_attention(), attention_offsets(batch),
                            s.q.v2<Head>(), s.k.v2<Head>(), s.v.v2<Head>(), model.softmax_scale,
                            out, lse);
  });
}

template <class Real>
void attend_backward(const ModelOf<Real>& model, SequenceBatch batch, const MlaSaved& s,
                     View2<const Real> dout, View2<Real> dq, View2<Real> dk, View2<Real> dv) {
  const SharedTensor out = values_of(s.out);
  with_head_type(model, [&]<class Head>(std::type_identity<Head>) {
    attention_backward_batch(model.config.expanded_attention(), attention_offsets(batch),
                             s.q.v2<Head>(), s.k.v2<Head>(), s.v.v2<Head>(), out->v2<Real>(),
                             s.lse.v2<Real>(), dout, model.softmax_scale, dq, dk, dv);
  });
}

void forget_heads(MlaSaved& s) {
  s.q = Tensor();
  s.k = Tensor();
  s.v = Tensor();
}

void forget(const Recompute& recompute, MlaSaved& s) {
  if (recompute.rmsnorm) s.c_q = s.c_kv = {};
  if (recompute.mla_up) forget_heads(s);
}

}  // namespace

template <class Real>
MlaSaved mla_forward(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w, SequenceBatch batch,
                     SharedTensor x, View2<Real> y, Fp8LayerCounts* counts) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  MlaSaved s;
  fill_angles(model, batch, s);
  s.x = operand(model, std::move(x), inputs_of(counts));

  if (c.q_lora_rank) {
    s.q_a = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    apply(w.q_a_proj, s.x, s.q_a.v2<Real>());
  }
  s.kv_a = Tensor::uninitialized<Real>({T, C + R});
  apply(w.kv_a_proj_with_mqa, s.x, s.kv_a.v2<Real>());
  rope_apply(one_head(s.kv_a.v2<Real>().columns(C, R)), s.cos.v2<Real>(), s.sin.v2<Real>());
  norm_latents(model, w, s, inputs_of(counts));
  project_up(model, w, s);

  Tensor out = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
  s.lse = Tensor::uninitialized<Real>({T, H});
  attend(model, batch, s, out.v2<Real>(), s.lse.v2<Real>());
  forget(model.recompute, s);
  const SharedTensor shared = share(std::move(out));
  apply(w.o_proj, operand(model, shared, inputs_of(counts)), y);
  s.out = keep_attention_output(model, shared);
  return s;
}

// With the products of the forward read backwards; d(k_rope) is summed over heads, and the
// rotation's gradient is the rotation by the opposite angle.
template <class Real>
MlaWeightWork mla_backward_input(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w,
                                 SequenceBatch batch, SharedTensor dy, MlaSaved s, View2<Real> dx,
                                 Fp8LayerCounts* counts) {
  const ModelConfig& c = model.config;
  const Index T = batch.rows(), C = c.kv_lora_rank, R = c.qk_rope_head_dim;
  const Index H = c.num_attention_heads;
  Fp8Counts* const gradients = gradients_of(counts);
  if (model.recompute.rmsnorm) norm_latents(model, w, s);
  if (model.recompute.mla_up) project_up(model, w, s);
  MlaWeightWork work;
  work.dy = operand(model, std::move(dy), gradients);

  Tensor dq = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
  Tensor dkv;
  Tensor dkv_a = Tensor::uninitialized<Real>({T, C + R});
  const View2<Real> dk_rope = dkv_a.v2<Real>().columns(C, R);
  {
    Tensor dout = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
    Tensor dk = Tensor::uninitialized<Real>({T, H * c.qk_head_dim()});
    Tensor dv = Tensor::uninitialized<Real>({T, H * c.v_head_dim});
    apply_transposed(w.o_proj, work.dy, dout.v2<Real>());
    attend_backward<Real>(model, batch, s, dout.v2<Real>(), dq.v2<Real>(), dk.v2<Real>(),
                          dv.v2<Real>());
    forget_heads(s);
    with_operand_type(model, [&]<class Value>(std::type_identity<Value>) {
      dkv = Tensor::uninitialized<Value>({T, H * (c.qk_nope_head_dim + c.v_head_dim)});
      mla_split_heads_backward(heads_of(c), dk.v2<Real>(), dv.v2<Real>(), dkv.v2<Value>(), dk_rope);
    });
  }
  rope_apply(rope_part<Real>(c, dq), s.cos.v2<Real>(), s.sin.v2<Real>(), Turn::Backward);
  rope_apply(one_head(dk_rope), s.cos.v2<Real>(), s.sin.v2<Real>(), Turn::Backward);
  work.dq = operand(model, share(std::move(dq)), gradients);

  work.dkv = operand(model, share(std::move(dkv)), gradients);
  work.dc_kv = Tensor::uninitialized<Real>({T, C});
  apply_transposed(w.kv_b_proj, work.dkv, work.dc_kv.v2<Real>());
  rmsnorm_backward_input(work.dc_kv.v2<Real>(), s.kv_a.v2<Real>().columns(0, C),
                         w.kv_a_layernorm.vector(), s.kv_a_rstd.v1<Real>(),
                         dkv_a.v2<Real>().columns(0, C));
  work.dkv_a = operand(model, share(std::move(dkv_a)), gradients);
  apply_transposed(w.kv_a_proj_with_mqa, work.dkv_a, dx);

  if (c.q_lora_rank) {
    work.dc_q = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    Tensor dq_a = Tensor::uninitialized<Real>({T, *c.q_lora_rank});
    apply_transposed(w.q_b_proj, work.dq, work.dc_q.v2<Real>());
    rmsnorm_backward_input(work.dc_q.v2<Real>(), s.q_a.v2<Real>(), w.q_a_layernorm.vector(),
                           s.q_a_rstd.v1<Real>(), dq_a.v2<Real>());
    work.dq_a = operand(model, share(std::move(dq_a)), gradients);
    apply_transposed(w.q_a_proj, work.dq_a, dx, Write::Add);
  } else {
    apply_transposed(w.q_proj, work.dq, dx, Write::Add);
  }

  work.x = std::move(s.x);
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
  weight_gradient(model, along_tokens(model, k.dy), along_tokens(model, k.out), dw.o_proj);
  weight_gradient(model, along_tokens(model, k.dkv), along_tokens(model, k.c_kv), dw.kv_b_proj);
  rmsnorm_backward_weight(k.dc_kv.v2<Real>(),
                          k.kv_a.v2<Real>().columns(0, model.config.kv_lora_rank),
                          k.kv_a_rstd.v1<Real>(), dw.kv_a_layernorm.v1<Real>());
  const TokenOperand x = along_tokens(model, k.x);
  weight_gradient(model, along_tokens(model, k.dkv_a), x, dw.kv_a_proj_with_mqa);
  const TokenOperand dq = along_tokens(model, k.dq);
  if (model.config.q_lora_rank) {
    weight_gradient(model, dq, along_tokens(model, k.c_q), dw.q_b_proj);
    rmsnorm_backward_weight(k.dc_q.v2<Real>(), k.q_a.v2<Real>(), k.q_a_rstd.v1<Real>(),
                            dw.q_a_layernorm.v1<Real>());
    weight_gradient(model, along_tokens(model, k.dq_a), x, dw.q_a_proj);
  } else {
    weight_gradient(model, dq, x, dw.q_proj);
  }
}

template decltype(mla_forward<float>) mla_forward<float>;
template decltype(mla_forward<double>) mla_forward<double>;
template decltype(mla_backward_input<float>) mla_backward_input<float>;
template decltype(mla_backward_input<double>) mla_backward_input<double>;
template decltype(mla_backward_weight<float>) mla_backward_weight<float>;
template decltype(mla_backward_weight<double>) mla_backward_weight<double>;

}  // namespace minke

#include "model/mtp.h"

#include "ops/rmsnorm.h"

namespace minke {

namespace {

// Both norms side by side, from `embedding` and `h` of a MtpSaved or MtpWeightWork.
template <class Real, class Inputs>
void join(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, Inputs& s) {
  const double eps = model.config.rms_norm_eps;
  const Index T = s.h.extent(0), D = model.config.hidden_size;
  s.embedding_rstd = Tensor::uninitialized<Real>({T});
  s.h_rstd = Tensor::uninitialized<Real>({T});
  s.joined = Tensor::uninitialized<Real>({T, 2 * D});
  rmsnorm_forward(s.embedding.template v2<Real>(), w.enorm.vector(), eps,
                  s.joined.template v2<Real>().columns(0, D), s.embedding_rstd.template v1<Real>());
  rmsnorm_forward(s.h.template v2<Real>(), w.hnorm.vector(), eps,
                  s.joined.template v2<Real>().columns(D, D), s.h_rstd.template v1<Real>());
}

}  // namespace

template <class Real>
MtpSaved mtp_forward(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, SequenceBatch batch,
                     Tensor embedding, Tensor h, Tensor& head_norm, std::span<std::int64_t> load,
                     Fp8LayerCounts* counts) {
  const double eps = model.config.rms_norm_eps;
  const Index T = batch.rows(), D = model.config.hidden_size;
  MtpSaved s;
  s.embedding = std::move(embedding);
  s.h = std::move(h);
  join(model, w, s);
  Tensor z = Tensor::uninitialized<Real>({T, D});
  apply(w.eh_proj, s.joined.v2<Real>(), z.v2<Real>());
  if (model.recompute.rmsnorm) s.joined = Tensor();
  s.block = block_forward(model, w.block, batch, std::move(z), s.block_out, load, counts);
  s.block_out_rstd = Tensor::uninitialized<Real>({T});
  head_norm = Tensor::uninitialized<Real>({T, D});
  rmsnorm_forward(s.block_out.v2<Real>(), w.shared_head_norm.vector(), eps, head_norm.v2<Real>(),
                  s.block_out_rstd.v1<Real>());
  return s;
}

// dblock_out = dRMSNorm(dhead_norm);   dz = dBlock(dblock_out);   djoined = dz W_eh
template <class Real>
MtpWeightWork mtp_backward_input(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w,
                                 SequenceBatch batch, Tensor dhead_norm, MtpSaved s,
                                 BalanceTerm& balance, Tensor& dh, Fp8LayerCounts* counts) {
  const Index T = batch.rows(), D = model.config.hidden_size;
  MtpWeightWork work;
  Tensor dblock_out = Tensor::uninitialized<Real>({T, D});
  rmsnorm_backward_input(dhead_norm.v2<Real>(), s.block_out.v2<Real>(), w.shared_head_norm.vector(),
                         s.block_out_rstd.v1<Real>(), dblock_out.v2<Real>());
  work.dhead_norm = std::move(dhead_norm);
  work.block_out = std::move(s.block_out);
  work.block_out_rstd = std::move(s.block_out_rstd);
  work.block = block_backward_input(model, w.block, batch, std::move(dblock_out),
                                    std::move(s.block), balance, work.dz, counts);
  work.djoined = Tensor::uninitialized<Real>({T, 2 * D});
  apply_transposed(w.eh_proj, work.dz.v2<Real>(), work.djoined.v2<Real>());

  const View2<Real> de = work.djoined.v2<Real>().columns(0, D);
  const View2<Real> dhn = work.djoined.v2<Real>().columns(D, D);
  work.dembedding = Tensor::uninitialized<Real>({T, D});
  dh = Tensor::uninitialized<Real>({T, D});
  rmsnorm_backward_input(de, s.embedding.v2<Real>(), w.enorm.vector(), s.embedding_rstd.v1<Real>(),
                         work.dembedding.v2<Real>());
  rmsnorm_backward_input(dhn, s.h.v2<Real>(), w.hnorm.vector(), s.h_rstd.v1<Real>(), dh.v2<Real>());
  work.joined = std::move(s.joined);
  work.embedding = std::move(s.embedding);
  work.embedding_rstd = std::move(s.embedding_rstd);
  work.h = std::move(s.h);
  work.h_rstd = std::move(s.h_rstd);
  return work;
}

template <class Real>
void mtp_backward_weight(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, MtpWeightWork k,
                         MtpGradients& dw) {
  const Index D = model.config.hidden_size;
  rmsnorm_backward_weight(k.dhead_norm.v2<Real>(), k.block_out.v2<Real>(),
                          k.block_out_rstd.v1<Real>(), dw.shared_head_norm.v1<Real>());
  block_backward_weight(model, w.block, std::move(k.block), dw.block);
  if (model.recompute.rmsnorm) join(model, w, k);
  linear_weight_gradient(k.dz.v2<Real>(), k.joined.v2<Real>(), dw.eh_proj.v2<Real>(),
                         model.precision());
  rmsnorm_backward_weight(k.djoined.v2<Real>().columns(0, D), k.embedding.v2<Real>(),
                          k.embedding_rstd.v1<Real>(), dw.enorm.v1<Real>());
  rmsnorm_backward_weight(k.djoined.v2<Real>().columns(D, D), k.h.v2<Real>(), k.h_rstd.v1<Real>(),
                          dw.hnorm.v1<Real>());
}

template decltype(mtp_forward<float>) mtp_forward<float>;
template decltype(mtp_forward<double>) mtp_forward<double>;
template decltype(mtp_backward_input<float>) mtp_backward_input<float>;
template decltype(mtp_backward_input<double>) mtp_backward_input<double>;
template decltype(mtp_backward_weight<float>) mtp_backward_weight<float>;
template decltype(mtp_backward_weight<double>) mtp_backward_weight<double>;

}  // namespace minke

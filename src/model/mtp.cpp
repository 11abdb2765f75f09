#include "model/mtp.h"

#include "ops/rmsnorm.h"

namespace minke {

namespace {

// Both norms side by side, from s.embedding and s.h.
template <class Real>
void join(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, MtpSaved& s) {
  const double eps = model.config.rms_norm_eps;
  const Index T = s.h.extent(0), D = model.config.hidden_size;
  s.embedding_rstd = Tensor::uninitialized<Real>({T});
  s.h_rstd = Tensor::uninitialized<Real>({T});
  s.joined = Tensor::uninitialized<Real>({T, 2 * D});
  rmsnorm_forward(s.embedding.v2<Real>(), w.enorm.vector(), eps, s.joined.v2<Real>().columns(0, D),
                  s.embedding_rstd.v1<Real>());
  rmsnorm_forward(s.h.v2<Real>(), w.hnorm.vector(), eps, s.joined.v2<Real>().columns(D, D),
                  s.h_rstd.v1<Real>());
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

template <class Real>
void mtp_backward(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, SequenceBatch batch,
                  View2<const Real> dhead_norm, MtpSaved s, BalanceTerm& balance,
                  Tensor& dembedding, Tensor& dh, MtpGradients& dw, Fp8LayerCounts* counts) {
  const Index T = batch.rows(), D = model.config.hidden_size;
  Tensor dblock_out = Tensor::uninitialized<Real>({T, D});
  rmsnorm_backward_input(dhead_norm, s.block_out.v2<Real>(), w.shared_head_norm.vector(),
                         s.block_out_rstd.v1<Real>(), dblock_out.v2<Real>());
  rmsnorm_backward_weight(dhead_norm, s.block_out.v2<Real>(), s.block_out_rstd.v1<Real>(),
                          dw.shared_head_norm.v1<Real>());
  Tensor dz;
  block_backward_weight(model, w.block,
                        block_backward_input(model, w.block, batch, std::move(dblock_out),
                                             std::move(s.block), balance, dz, counts),
                        dw.block);
  if (model.recompute.rmsnorm) join(model, w, s);
  Tensor djoined = Tensor::uninitialized<Real>({T, 2 * D});
  apply_transposed(w.eh_proj, dz.v2<Real>(), djoined.v2<Real>());
  linear_weight_gradient(dz.v2<Real>(), s.joined.v2<Real>(), dw.eh_proj.v2<Real>(),
                         model.precision());

  const View2<Real> de = djoined.v2<Real>().columns(0, D), dhn = djoined.v2<Real>().columns(D, D);
  dembedding = Tensor::uninitialized<Real>({T, D});
  dh = Tensor::uninitialized<Real>({T, D});
  rmsnorm_backward_input(de, s.embedding.v2<Real>(), w.enorm.vector(), s.embedding_rstd.v1<Real>(),
                         dembedding.v2<Real>());
  rmsnorm_backward_weight(de, s.embedding.v2<Real>(), s.embedding_rstd.v1<Real>(),
                          dw.enorm.v1<Real>());
  rmsnorm_backward_input(dhn, s.h.v2<Real>(), w.hnorm.vector(), s.h_rstd.v1<Real>(), dh.v2<Real>());
  rmsnorm_backward_weight(dhn, s.h.v2<Real>(), s.h_rstd.v1<Real>(), dw.hnorm.v1<Real>());
}

template decltype(mtp_forward<float>) mtp_forward<float>;
template decltype(mtp_forward<double>) mtp_forward<double>;
template decltype(mtp_backward<float>) mtp_backward<float>;
template decltype(mtp_backward<double>) mtp_backward<double>;

}  // namespace minke

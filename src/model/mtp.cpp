#include "model/mtp.h"

#include "ops/rmsnorm.h"

namespace minke {

MtpSaved mtp_forward(const Model& model, const MtpWeights& w, SequenceBatch batch, Tensor embedding,
                     Tensor h, Tensor& head_norm, std::span<std::int64_t> load) {
  const float eps = static_cast<float>(model.config.rms_norm_eps);
  const Index T = batch.rows(), D = model.config.hidden_size;
  MtpSaved s;
  s.embedding_rstd = Tensor::uninitialized({T});
  s.h_rstd = Tensor::uninitialized({T});
  s.joined = Tensor::uninitialized({T, 2 * D});
  rmsnorm_forward(embedding.v2(), w.enorm.dense.v1(), eps, s.joined.v2().columns(0, D),
                  s.embedding_rstd.v1());
  rmsnorm_forward(h.v2(), w.hnorm.dense.v1(), eps, s.joined.v2().columns(D, D), s.h_rstd.v1());
  Tensor z = Tensor::uninitialized({T, D});
  apply(w.eh_proj, s.joined.v2(), z.v2());
  s.block = block_forward(model, w.block, batch, std::move(z), s.block_out, load);
  s.block_out_rstd = Tensor::uninitialized({T});
  head_norm = Tensor::uninitialized({T, D});
  rmsnorm_forward(s.block_out.v2(), w.shared_head_norm.dense.v1(), eps, head_norm.v2(),
                  s.block_out_rstd.v1());
  s.embedding = std::move(embedding);
  s.h = std::move(h);
  return s;
}

void mtp_backward(const Model& model, const MtpWeights& w, SequenceBatch batch,
                  View2<const float> dhead_norm, MtpSaved s, BalanceTerm& balance,
                  Tensor& dembedding, Tensor& dh, MtpGradients& dw) {
  const Index T = batch.rows(), D = model.config.hidden_size;
  Tensor dblock_out = Tensor::uninitialized({T, D});
  rmsnorm_backward_input(dhead_norm, s.block_out.v2(), w.shared_head_norm.dense.v1(),
                         s.block_out_rstd.v1(), dblock_out.v2());
  rmsnorm_backward_weight(dhead_norm, s.block_out.v2(), s.block_out_rstd.v1(),
                          dw.shared_head_norm.v1());
  Tensor dz;
  block_backward_weight(model, w.block,
                        block_backward_input(model, w.block, batch, std::move(dblock_out),
                                             std::move(s.block), balance, dz),
                        dw.block);
  Tensor djoined = Tensor::uninitialized({T, 2 * D});
  apply_transposed(w.eh_proj, dz.v2(), djoined.v2());
  linear_weight_gradient(dz.v2(), s.joined.v2(), dw.eh_proj.v2(), model.precision());

  const View2<float> de = djoined.v2().columns(0, D), dhn = djoined.v2().columns(D, D);
  dembedding = Tensor::uninitialized({T, D});
  dh = Tensor::uninitialized({T, D});
  rmsnorm_backward_input(de, s.embedding.v2(), w.enorm.dense.v1(), s.embedding_rstd.v1(),
                         dembedding.v2());
  rmsnorm_backward_weight(de, s.embedding.v2(), s.embedding_rstd.v1(), dw.enorm.v1());
  rmsnorm_backward_input(dhn, s.h.v2(), w.hnorm.dense.v1(), s.h_rstd.v1(), dh.v2());
  rmsnorm_backward_weight(dhn, s.h.v2(), s.h_rstd.v1(), dw.hnorm.v1());
}

}  // namespace minke

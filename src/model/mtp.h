// One multi-token prediction module (the report's equations 21-25, in the order of the published
// weights). Module k, from 0, sits at layer index L + k; at position i
//   z = W_eh [RMSNorm_e(Emb(t[i+k+1])); RMSNorm_h(h[i])]
//   o = Block(z);   head_norm = RMSNorm(o);   logits = head_norm lm_head^T predict t[i+k+2]
// where h is the main model's state after its final norm, and for k > 0 the head_norm of module
// k-1.
#pragma once
#include "model/block.h"

namespace minke {

struct MtpSaved {
  Tensor embedding, embedding_rstd;  // [T, D], [T]
  Tensor h, h_rstd;
  Tensor joined;  // [T, 2 D] after both norms; empty under recompute.rmsnorm
  BlockSaved block;
  Tensor block_out, block_out_rstd;
};

struct MtpWeightWork {
  Tensor dembedding;  // [T, D], for the table's rows
  Tensor dhead_norm, block_out, block_out_rstd;
  BlockWeightWork block;
  Tensor dz, joined;  // [T, D], [T, 2 D]
  Tensor djoined;     // [T, 2 D]
  Tensor embedding, embedding_rstd, h, h_rstd;
};

// embedding, h [T, D] -> head_norm [T, D].
template <class Real>
MtpSaved mtp_forward(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w, SequenceBatch batch,
                     Tensor embedding, Tensor h, Tensor& head_norm,
                     std::span<std::int64_t> load = {}, Fp8LayerCounts* counts = nullptr);

// dhead_norm [T, D] -> dh [T, D]; the gradient of the embedding is in the work.
template <class Real>
MtpWeightWork mtp_backward_input(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w,
                                 SequenceBatch batch, Tensor dhead_norm, MtpSaved saved,
                                 BalanceTerm& balance, Tensor& dh,
                                 Fp8LayerCounts* counts = nullptr);
template <class Real>
void mtp_backward_weight(const ModelOf<Real>& model, const MtpWeightsOf<Real>& w,
                         MtpWeightWork work, MtpGradients& dw);

}  // namespace minke

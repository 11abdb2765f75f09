// Multi-head latent attention (the report's equations 1-11), the form for training: expanded, over
// whole sequences, forward, B and W. Inference over a latent cache is in model/mla_decode.h. Real,
// here and in the other layers, is float or double (model/weights.h); tensors are of that type.
//
//   c_q = RMSNorm(x W_DQ^T);   q = c_q W_UQ^T = [q_nope; q_rope] per head      (q = x W_Q^T without
//   Q) [c; k_r] = x W_DKV^T;      c_kv = RMSNorm(c);   k_rope = RoPE(k_r), one for all heads
//   [k_nope; v] = c_kv W_UKV^T per head
//   out = softmax(scale [q_nope; RoPE(q_rope)] . [k_nope; k_rope]) v;   y = out W_O^T
#pragma once
#include <span>
#include <vector>

#include "model/operand.h"

namespace minke {

// Of each sequence the positions at which a document begins, ascending from 0: attention does not
// look across them. Empty: it sees whole sequences.
using DocumentStarts = std::span<const std::vector<Index>>;

// Sequences of equal length, one after another in the rows of every tensor; positions from 0.
struct SequenceBatch {
  Index n_sequences;
  Index length;
  DocumentStarts starts = {};  // those from `length` on do not count
  Index rows() const { return n_sequences * length; }
};

// Bytes of a token in numbers of R bytes (4; compute bf16 and fp8 as noted). Without recomputation
//   x         D R, shared with nothing else        BF16 2 D, FP8 1.03 D
//   q_a, c_q  2 Q R                                BF16 4 Q + 2 Q, FP8 4 Q + 1.03 Q
//   kv_a, c_kv  (2 C + R') R, R' rotary size       BF16 4 (C + R') + 2 C, FP8 4 (C + R') + 1.03 C
//   q, k, v   H (2 (N + R') + V) R                 BF16 and FP8 2 bytes a number, as attention's
//                                                  products read them: those are never in FP8
//   out       H V R                                FP8 1.51 H V (E5M6)
// recompute.mla_up leaves out q, k and v, recompute.rmsnorm x, c_q and c_kv.
struct MlaSaved {
  Operand x;               // [T, D] input, after input_layernorm
  Tensor q_a, q_a_rstd;    // [T, Q] before its norm, [T]
  Operand c_q;             // [T, Q]
  Tensor kv_a, kv_a_rstd;  // [T, C+R] before norm (C) and rotated (R), [T]
  Operand c_kv;            // [T, C]
  Tensor q, k, v;          // [T, H (N+R)] twice (rotated), [T, H V]
  KeptOutput out;          // [T, H V]
  Tensor lse;              // [T, H]
  Tensor cos, sin;         // [T, R/2]
};

struct MlaWeightWork {
  Operand x, dy;  // inputs and output gradients of every product
  KeptOutput out;
  Operand c_kv, dkv;  // [T, C], [T, H (N+V)]
  Tensor kv_a, kv_a_rstd, dc_kv;
  Operand dkv_a;
  Tensor q_a, q_a_rstd, dc_q;
  Operand c_q, dq_a;
  Operand dq;  // [T, H (N+R)]
};

// x [T, D] -> y [T, D], overwritten.
template <class Real>
MlaSaved mla_forward(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w, SequenceBatch batch,
                     SharedTensor x, View2<Real> y, Fp8LayerCounts* counts = nullptr);
// dy [T, D] -> dx [T, D], overwritten.
template <class Real>
MlaWeightWork mla_backward_input(const ModelOf<Real>& model, const MlaWeightsOf<Real>& w,
                                 SequenceBatch batch, SharedTensor dy, MlaSaved saved,
                                 View2<Real> dx, Fp8LayerCounts* counts = nullptr);
template <class Real>
void mla_backward_weight(const ModelOf<Real>& model, MlaWeightWork work, MlaGradients& dw);

}  // namespace minke

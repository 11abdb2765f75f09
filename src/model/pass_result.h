// What a pass over one micro-batch is asked for and what it reports. A pipeline stage fills in its
// own part: losses where the output head is, loads and balance of its own layers.
#pragma once
#include <cstdint>
#include <vector>

#include "model/gate.h"
#include "model/mla.h"
#include "model/weights.h"

namespace minke {

struct LossSettings {
  double mtp_lambda = 0.3;
  double alpha = 1e-4;
  // Part of the whole batch that this micro-batch is (its sequences over all sequences); losses and
  // gradients are scaled by it, so that micro-batches add up.
  double share = 1;
  BalanceScope balance_scope = BalanceScope::Sequence;
  DocumentStarts starts = {};  // of the rows of tokens; they outlive the pass
};

struct MoeLayerRecord {
  Index layer;                     // index in the published names, MTP modules included
  std::vector<std::int64_t> load;  // selections per expert
  BalanceTerm balance;
  Tensor scores;  // [T, E], kept when asked for
};

struct Fp8LayerRecord {
  Index layer;  // as in MoeLayerRecord
  Fp8LayerCounts counts;
};

struct PassResult {
  double total = 0, main = 0;
  double mtp = 0;             // with its factor
  std::vector<double> mtp_k;  // without
  double balance = 0;
  std::vector<MoeLayerRecord> moe;  // in the order of layers
  std::vector<Fp8LayerRecord> fp8;  // of every layer in FP8 training with statistics, else empty
  double saved_bytes = 0;  // that the forward pass kept for the backward pass, logits left out
};

// Empty records of the layers of a stage, MTP modules included; the FP8 counts of weights are
// known.
template <class Real>
PassResult start_result(const ModelOf<Real>& model, const StageRange& range);
// Of a layer in it: nullptr where there is no record (dense layers; no FP8 statistics).
MoeLayerRecord* moe_record(PassResult& result, Index layer);
Fp8LayerCounts* fp8_counts(PassResult& result, Index layer);

// One result of the results of all stages, in their order.
PassResult joined(std::vector<PassResult> stages);
// Sets `balance`, the sum over layers in their order, and `total`, after the last B.
void add_up(PassResult& result);

}  // namespace minke

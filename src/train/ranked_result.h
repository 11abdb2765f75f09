// Losses and counts of a batch whose micro-batches are spread over pipelines, and each of them over
// the stages of one.
#pragma once
#include <vector>

#include "model/pass_result.h"
#include "parallel/communicator.h"

namespace minke {

// Gathers what the own stages report of their micro-batches, and joins it with the reports of all
// ranks.
class RankedResult {
 public:
  // `empty` is start_result of the whole model, with an mtp_k for each module and the FP8 counts of
  // the weights held here; those are added over the ranks where `counts_weights` is set.
  RankedResult(PassResult empty, Index n_micro_batches, bool counts_weights);
  // Of micro-batch m of the batch. What a rank reports of a micro-batch, no other rank does.
  void add(Index m, const PassResult& part);
  // Collective. Losses are summed in the order of micro-batches, those of balance in the order of
  // layers, the bits of one rank that adds them up; loads and FP8 counts are integers. The same on
  // all ranks, but for saved_bytes, which is 0.
  PassResult joined(Communicator& world) &&;

 private:
  std::size_t row_size() const;

  PassResult sum_;
  std::vector<double> losses_;  // [micro-batches, row]: main, mtp, each mtp_k, balance by layer
};

}  // namespace minke

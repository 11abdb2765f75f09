// Losses and counts of a batch whose micro-batches are spread over ranks.
#pragma once
#include <vector>

#include "model/pass_result.h"
#include "parallel/communicator.h"

namespace minke {

// Gathers the results of the own micro-batches, in their order, and joins them with those of the
// other ranks.
class RankedResult {
 public:
  void add(PassResult part);
  // Collective; every rank has added equally many, at least one. Losses are summed in the order of
  // micro-batches (first those of rank 0), the bits of one rank that adds them up; loads and FP8
  // counts are integers. The same on all ranks but for saved_bytes, which is of the first own one.
  PassResult joined(Communicator& world) &&;

 private:
  PassResult sum_;
  std::vector<double> losses_;  // a row for each micro-batch
};

}  // namespace minke

// What becomes of the documents in which no fault was found: for training, held out, or left out
// as a copy of another one, across all inputs.
//
// Exact copies have the same hash and length. Near-duplicates share a band of their MinHash and are
// at least as similar as the limit; what is near to the same document belongs together. Of such a
// group one document is kept:
//
//   the first held-out one, when there is any: nothing of the group is trained on then, so that a
//   held-out loss does not measure what the model has seen;
//   otherwise the first one of the input.
//
// Deterministic: depends on the records and their order alone. Memory is 24 bytes a document (and
// the records, which may be mapped).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/document_record.h"

namespace minke {

struct DuplicateOptions {
  double held_out_fraction = 0;  // of each source, by data/held_out.h
  bool exact = true;
  double near = 0.8;  // smallest estimated similarity; 0: near-duplicates stay
};

// The outcome of every record; those with a fault keep theirs. Throws ConfigError when there are
// 2^32 documents or more.
std::vector<Outcome> decide_outcomes(std::span<const DocumentRecord> records,
                                     const DuplicateOptions& options);

}  // namespace minke

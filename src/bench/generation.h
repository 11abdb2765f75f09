// Decoding and reading a prompt with a whole model, by the code that generation uses.
#pragma once
#include "bench/bench_model.h"
#include "bench/result.h"

namespace minke::bench {

struct DecodeBench {
  ModelChoice choice = {};
  Index context = 0;    // rows that each cache holds before
  Index sequences = 1;  // decoded together
  Index steps = 8;      // of one measurement, with other tokens (and experts) each
  Index mib = 256;      // in a pass of the read bandwidth
  int rounds = 9;
};
// "decode MODEL": one step, against the read bandwidth, in the bytes that it must touch
// (bench/step_bytes.h) with the experts that were really chosen.
std::vector<Result> decode_results(const DecodeBench& bench);

struct PrefillBench {
  ModelChoice choice = {};
  Index tokens = 512;
  int rounds = 5;
};
// "prefill MODEL": the prompt in the pieces that generate takes, and the head for its last token;
// against the limit of the products.
std::vector<Result> prefill_results(const PrefillBench& bench);

}  // namespace minke::bench

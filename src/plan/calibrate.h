// A machine as a cluster of one device, from what `minke bench` measured on it: peaks from the
// limits, efficiencies from the products.
//
//   efficiency = sum of FLOP / sum of (FLOP / share of the limit)      over the lines of a kind
//
//   products    "linear" in BF16            experts    "linear experts"
//   gradients   "gradient", "gradient experts" in BF16
//   attention   "attention MODEL" and its backward where there are any; else the share that FP32
//   products reach, of the
//               FP32 limit, as attention computes in FP32
//   memory      "pack...": streams that are read and written
//   weights     "linear from memory" of one row, in BF16 and in E4M3; products from E4M3: "linear"
//   experts of a prompt  "moe MODEL" with several rows: two rates by least squares (Efficiency)
//   bandwidth   "read bandwidth" where there is one; else the limit of those
//
// Lines of training, decoding and prefill are not used: those are what is predicted.
#pragma once
#include <string>
#include <vector>

#include "plan/cluster.h"

namespace minke {

struct BenchLine {
  std::string name, shape, form;  // a part ("  backward") has the name of its whole in front
  double seconds = 0, bytes = 0, flop = 0;
  double limit = 0;  // FLOP/s of a line with FLOP, else bytes/s
  double share = 0;  // of it
};
struct BenchRun {
  std::string processor, isa;
  Index threads = 0;
  std::vector<BenchLine> lines;
};

// The JSON of `minke bench ... --json`. FormatError with `where`, the key and what was expected.
BenchRun parse_bench(const std::string& text, const std::string& where);

// All files together. ConfigError when they are of different machines or threads, or naming the
// benchmark that is missing.
Cluster calibrated_cluster(const std::vector<BenchRun>& runs, double memory_bytes,
                           double price_per_device_hour);

}  // namespace minke

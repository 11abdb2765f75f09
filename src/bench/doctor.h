// What a model can reach on this machine at most, why, and what would help: for somebody who runs a
// server, not for somebody who writes kernels.
#pragma once
#include <string>
#include <vector>

#include "base/machine_memory.h"
#include "bench/bench_model.h"
#include "bench/result.h"
#include "ops/isa.h"

namespace minke::bench {

// One way of holding the weights (--compute bf16).
struct Footing {
  LinearStorage storage;
  WeightBytes weights;
  double cache_of_token = 0;  // bytes of a token in the latent cache, all layers
};

// A NUMA node whose memory threads have near.
struct NodeInUse {
  int number = 0;
  std::string cpus = {};  // of those that the process may use: "0-15,32-47"
  int threads = 0;
};

struct Diagnosis {
  ModelSummary model;
  Footing stored, converted;  // as it is, and after minke convert to the other form
  CpuFeatures cpu;
  Isa isa = Isa::Scalar;
  int threads = 1, cores = 1;
  MachineMemory memory;
  std::vector<NodeInUse> homes;  // empty with one node, or with fewer threads than nodes
  Result bandwidth;              // "read bandwidth", all threads
  double product_flop_per_s = 0;
  double flop_of_prompt_token = 0;

  double needed_bytes(const Footing& f, Index context) const {
    return f.weights.held + f.cache_of_token * static_cast<double>(context);
  }
  bool fits(const Footing& f) const;
  // One sequence, after `context` tokens: bytes of a token over bytes a second.
  double decode_bound(const Footing& f, Index context) const;
  double prefill_bound() const { return product_flop_per_s / flop_of_prompt_token; }
};

struct DoctorBench {
  std::string model = "mini";
  int rounds = 9;
  Index mib = 256;  // read in a pass
};
Diagnosis diagnose(const DoctorBench& bench);

// What would help, a sentence each; empty when nothing stands in the way.
std::vector<std::string> advice(const Diagnosis& d);

}  // namespace minke::bench

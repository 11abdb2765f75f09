// Inference with the routed experts of every layer spread over ranks: rank 0 runs the passes, with
// all of the model but the experts of others; each of those holds its experts alone, and answers.
//
//   rank 0 calls    load    the model's experts, with or without those of MTP modules
//                   layer   rows follow, and their outputs come back (parallel/expert_exchange.h,
//                           in which the other ranks have no tokens of their own)
//                   end
//
// Rows travel in full precision and are added at home in the order of the choice: a token has the
// bits that one rank gives it. A rank that waits for a call sleeps, without a bound; one that waits
// for rows does so within the bound, and RankFailure ends the job.
#pragma once
#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "base/function_ref.h"
#include "model/weights.h"
#include "parallel/expert_exchange.h"

namespace minke {

// Rank 0. Model passes may come from any thread, one at a time.
class ExpertCaller {
 public:
  // Collective with the ExpertHolder of the others. `bound`: of a wait within a pass (0: for ever).
  ExpertCaller(Communicator& ranks, std::chrono::milliseconds bound);

  int n_ranks() const { return ranks_->size(); }
  // Calls the others to load their share, once; returns the experts that rank 0 has to load.
  // ConfigError when there are none, or they cannot be shared out evenly.
  ExpertRange call_to_load(const ModelConfig& config, bool mtp);
  // Returns when all have loaded; passes of `model` then go to them. Interrupted when `cancelled`
  // says so, which is asked meanwhile.
  void attach_to(Model& model, const std::function<bool()>& cancelled = {});
  // To be called once, whatever happened, unless the job is being aborted.
  void end();

 private:
  friend class CalledExperts;
  void call(std::int32_t what, Index number, bool mtp = false);

  std::unique_ptr<Communicator> ranks_;
  std::chrono::milliseconds bound_;
  std::optional<ExpertGroup> group_;
  std::vector<Request> loaded_;  // one of each other rank
  std::int64_t n_layers_called_ = 0;
};

// What a rank is called to load.
struct ExpertLoad {
  ExpertRange held;
  bool mtp;
  FunctionRef<bool()> called_off;  // to be asked while loading
};

// The other ranks: collective with the ExpertCaller, returns at its end. `load` gives a model of
// which the routed experts held are used, or none when it was called off.
void hold_experts(Communicator& ranks, std::chrono::milliseconds bound,
                  FunctionRef<std::optional<Model>(const ExpertLoad&)> load);

}  // namespace minke

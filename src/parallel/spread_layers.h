// Inference with the layers of a model on several ranks: the caller, which has the model's ends
// (model/layer_ranks.h), sends the rows of a pass round the ranks of the stages, each of which runs
// its layers on the latent rows that it keeps of them.
//
//   the caller calls   load    the layers, where they are not in memory
//                      pass    pages and new rows of every sequence follow; then, from stage to
//                              stage, x [T, D], and from the last stage but one to the caller
//                      copy    a page to another one
//                      end
//
// Rows travel in FP32: a token has the bits that one rank gives it. A rank that waits for a call
// sleeps, without a bound; one that waits for rows does so within the bound.
#pragma once
#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "base/function_ref.h"
#include "model/cached_forward.h"
#include "parallel/communicator.h"

namespace minke {

// The stages of a model, first to last, and the rank that has each. The caller has the last one.
struct LayerPlacement {
  std::vector<StageRange> stages;
  std::vector<int> ranks;
  int caller() const { return ranks.back(); }
};

class LayerCaller final : public LayerRanks {
 public:
  // Collective with hold_layers of the other ranks. `bound`: of a wait within a pass (0: for ever),
  // and of this rank's waits after the end.
  LayerCaller(Communicator& ranks, std::chrono::milliseconds bound);
  // Calls the others to load their layers, once.
  void call_to_load(LayerPlacement placement);
  // Returns when all have loaded. Interrupted when `cancelled` says so, which is asked meanwhile.
  // Passes of models whose layer_ranks is this then go to the others.
  void wait_until_loaded(const std::function<bool()>& cancelled = {});
  // To be called once, whatever happened, unless the job is being aborted.
  void end();

  Tensor pass(const Model& model, std::span<const Segment> segments, Tensor x) override;
  PageNumber take_pages(Index n) override;
  void give_back(std::span<const PageNumber> pages) override;
  void copy_page(PageNumber from, PageNumber to) override;

 private:
  struct Call;
  void call(const Call& call, std::span<const std::int32_t> segments = {});

  std::unique_ptr<Communicator> ranks_;
  const std::chrono::milliseconds bound_;
  LayerPlacement placement_;
  std::vector<Request> loaded_;  // one of each other rank
  PageNumber next_page_ = 0;
  std::vector<PageNumber> free_pages_;
  std::int64_t n_passes_ = 0;

  friend class LayerHolder;
};

// What a rank has loaded: a model with the layers of its stages, which must outlive hold_layers.
struct HeldLayers {
  const Model* model;
  LayerPlacement placement;
};

// The other ranks: collective with the LayerCaller, returns at its end. `load(called_off)` gives
// the layers, or none when it was called off, which is to be asked while loading.
void hold_layers(Communicator& ranks, int caller, std::chrono::milliseconds bound,
                 FunctionRef<std::optional<HeldLayers>(FunctionRef<bool()>)> load);

}  // namespace minke

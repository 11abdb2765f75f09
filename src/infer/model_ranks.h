// Inference of a model over the ranks of a job: its layers over the ranks of a pipeline, and of
// each of these stages the routed experts over some ranks.
//
//   world rank = p E + e      rank e of E holds [e n / E, (e + 1) n / E) of the experts of a stage,
//                             the one with e = 0 all else of it
//   p = 0                     the last layers, the embedding, final norm, output head, MTP modules
//   p > 0                     stage p - 1, first to last
//
// Rank 0 runs the passes and calls the others (parallel/spread_layers.h, infer/expert_ranks.h). A
// token has the bits that one rank gives it. One stage of a pass computes at a time: stages make
// room for a model, ranks that share experts make it faster as well.
#pragma once
#include "infer/expert_ranks.h"
#include "parallel/spread_layers.h"

namespace minke {

struct InferenceLayout {
  int pipeline = 1, experts = 1;
};
// "2x4", or nothing: the experts over all ranks. ConfigError when it is not one of n_ranks.
InferenceLayout parse_inference_layout(const std::string& text, int n_ranks);

// The layers and experts that a rank has to load. `config` is that of the files.
struct ModelPart {
  std::vector<StageRange> stages = {};      // none: all
  std::optional<ExpertRange> experts = {};  // none: all
  bool experts_alone = false;               // and nothing else of the stages
  bool mtp = false;
  FunctionRef<bool()> called_off;  // to be asked while loading
};

// Rank 0. Model passes may come from any thread, one at a time.
class ModelCaller {
 public:
  // Collective with hold_model_part of the others. `bound`: of a wait within a pass (0: for ever).
  ModelCaller(Communicator& world, const InferenceLayout& layout, std::chrono::milliseconds bound);

  int n_ranks() const { return n_ranks_; }
  const InferenceLayout& layout() const { return layout_; }
  // Calls the others to load their parts, once; returns what rank 0 has to load. ConfigError when
  // the model cannot be shared out so.
  struct OwnPart {
    std::vector<StageRange> stages;
    std::optional<ExpertRange> experts;
  };
  OwnPart call_to_load(const ModelConfig& config, bool mtp);
  // Returns when all have loaded; passes of `model` then go to them. Interrupted when `cancelled`
  // says so, which is asked meanwhile.
  void attach_to(Model& model, const std::function<bool()>& cancelled = {});
  // To be called once, whatever happened, unless the job is being aborted.
  void end();

 private:
  const InferenceLayout layout_;
  const int n_ranks_;
  std::unique_ptr<Communicator> stage_, pipeline_;
  std::optional<ExpertCaller> experts_;
  std::optional<LayerCaller> layers_;
};

// The other ranks: collective with the ModelCaller, returns at its end. `config` reads that of the
// files, `load` gives a model with the part, or none when it was called off.
void hold_model_part(Communicator& world, const InferenceLayout& layout,
                     std::chrono::milliseconds bound, FunctionRef<ModelConfig()> config,
                     FunctionRef<std::optional<Model>(const ModelPart&)> load);

}  // namespace minke

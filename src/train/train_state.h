// What training changes: master weights, moments and the number of steps; what follows from the
// masters (the packed form for products) and the gradients being summed. And its checkpoints.
//
// A checkpoint is a directory that appears whole or not at all (base/files.h):
//   config.json, model.safetensors   a model directory, the masters exact in FP32
//   optimizer.safetensors            m.NAME and v.NAME, BF16 or FP32 as they are in memory
//   ema.safetensors                  the moving average by its names, of runs that keep one
//                                    (all in several files where several ranks write them)
//   train_state.json                 step, and what the caller adds (data position, recipe)
//   manifest.json                    sizes and hashes, written last
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "parallel/communicator.h"
#include "train/ema.h"
#include "train/optimizer.h"

namespace minke {

struct StatePart;

// All FP32 but moments and packed weights, or all double (`minke step`). Of several ranks each has
// the part that its config says it holds (ModelConfig::held_experts, held_stages).
template <class Real>
struct TrainStateOf {
  ModelConfig config;
  ModelParameters<Tensor> masters;
  Moments moments;
  ModelGradients gradients;  // zero between steps
  ModelOf<Real> model;       // what products read; refreshed after every update
  std::optional<Ema> ema;    // of the masters after each update, in FP32 training alone
  std::int64_t step = 0;     // steps made
  std::int64_t skipped = 0;  // those of them without an update
};
using TrainState = TrainStateOf<float>;

// Step 0 from FP32 masters: zero moments and gradients, weights packed for `compute`. ConfigError
// for moments in FP64.
TrainState begin_training(const ModelConfig& config, ModelParameters<Tensor> masters,
                          MomentType moments, Compute compute, const TrainingForm& form = {});
// The same in double, which the masters are widened to.
TrainStateOf<double> begin_double_training(const ModelConfig& config,
                                           ModelParameters<Tensor> masters, MomentType moments);

// Collective. Writes the state as directory `target`: each rank its part (train/state_files.h),
// rank 0 the rest. `record` is an object to which format, step and moments are added; `copies` are
// files that are copied in (the tokenizer's). On ranks other than 0 the directory may still be
// partial.
void save_checkpoint(Communicator& ranks, const std::filesystem::path& target, TrainState& state,
                     const StatePart& part, nlohmann::ordered_json record,
                     const std::vector<std::filesystem::path>& copies = {});

// The record of save_checkpoint. FormatError when it is not one.
nlohmann::ordered_json read_checkpoint_record(const std::filesystem::path& directory);
// The state of save_checkpoint, bit for bit, or the part of it that `hold` says. FormatError naming
// file and tensor.
TrainState load_checkpoint(const std::filesystem::path& directory, Compute compute,
                           const TrainingForm& form = {}, const HoldPart& hold = {});

// The checkpoints of a run: DIR/step-N. Removing one is safe against being killed, too.
class CheckpointDirectory {
 public:
  // Finishes what killed processes left half done.
  explicit CheckpointDirectory(std::filesystem::path directory);
  std::filesystem::path path_of(std::int64_t step) const;
  // Ascending; those that are there by name, whole or not.
  std::vector<std::int64_t> steps() const;
  // The newest whole one (hashes checked), or -1. Each newer one that is not gets another name and
  // a warning.
  std::int64_t newest_whole() const;
  // Removes all but the newest `keep`.
  void prune(std::int64_t keep) const;

 private:
  void set_aside(std::int64_t step, const std::string& defect) const;

  std::filesystem::path directory_;
};

}  // namespace minke

// The tensors of a training state as files of a checkpoint (train/train_state.h):
//
//   model.safetensors, optimizer.safetensors, ema.safetensors    of one writer
//   model-0000K-of-0000N.safetensors, and so on                  of N, with
//   model.safetensors.index.json                                 as published models have it
//
// Each tensor has one writer among the ranks that hold it. Whoever reads takes what it needs out of
// however many files there are.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "train/state_tensors.h"

namespace minke {

// What one rank writes of a state.
struct StatePart {
  int number = 0, n_parts = 1;                      // of the files; -1: this rank writes none
  std::optional<std::set<std::string>> names = {};  // of tensors; none: all
};

// Writes the files of a part into `directory`, one part of all with its config.json. What it wrote,
// for finish_parts.
nlohmann::json write_part(const std::filesystem::path& directory, TrainState& state,
                          const StatePart& part);
// By one rank, with what all ranks returned: of several parts config.json and the index.
void finish_parts(AtomicDirectory& directory, const TrainState& state,
                  const std::vector<nlohmann::json>& parts);

// The moments, or the average, of what `config` says is held, to tensors of the right types and
// shapes. FormatError naming file and tensor.
void read_moments(const std::filesystem::path& directory, const ModelConfig& config,
                  Moments& moments);
void read_average(const std::filesystem::path& directory, const ModelConfig& config, Ema& ema);

}  // namespace minke
